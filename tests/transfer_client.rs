//! Blockwise transfers, on the client's side, as stories in virtual time (RFC 7959).

#![cfg(test)]

#[expect(clippy::allow_attributes, reason = "each test file uses another part of it")]
#[allow(dead_code, reason = "each test file uses another part of it")]
mod support;

use std::time::Duration;

use lowband::coap::{Instant, RequestError};
use lowband::endpoint::Event;

use support::endpoint::{PEER, config, endpoint_with_blocks, request, response, with, with_blocks};

#[test]
fn client_announces_the_size_of_its_body() {
    let mut client = with_blocks(64);
    let id = client.asks(0, "PUT, /x, CF:60, 0..100");
    client.sends(0, "CON [MID=a, TOK=t], PUT, /x, CF:60, 2:0/0/64, 1:0/1/64, Size1:100, 0..64");
    client.gets(10, "ACK [MID=a, TOK=t], 2.31, 1:0/1/64");
    client.sends(10, "CON [MID=b, TOK=t], PUT, /x, CF:60, 2:0/0/64, 1:1/0/64, 64..100");
    client.gets(20, "ACK [MID=b, TOK=t], 2.04, 1:1/0/64");
    client.is_answered(20, id, "2.04");
}

#[test]
fn lost_block_of_the_client_is_repeated() {
    let mut client = with_blocks(64);
    let id = client.asks(0, "PUT, /x, 0..100");
    client.sends(0, "CON [MID=a, TOK=t], PUT, /x, 2:0/0/64, 1:0/1/64, Size1:100, 0..64");
    client.sends(2_000, "CON [MID=a, TOK=t], PUT, /x, 2:0/0/64, 1:0/1/64, Size1:100, 0..64");
    client.gets(2_100, "ACK [MID=a, TOK=t], 2.31, 1:0/1/64");
    client.sends(2_100, "CON [MID=b, TOK=t], PUT, /x, 2:0/0/64, 1:1/0/64, 64..100");
    // The acknowledgement of the first comes too.
    client.gets(2_150, "ACK [MID=a, TOK=t], 2.31, 1:0/1/64");
    client.gets(2_200, "ACK [MID=b, TOK=t], 2.04, 1:1/0/64");
    client.is_answered(2_200, id, "2.04");
}

#[test]
fn client_starts_once_more_where_the_server_has_lost_its_blocks() {
    let mut client = with_blocks(64);
    let id = client.asks(0, "PUT, /x, 0..100");
    for (at, a, b) in [(0, "a", "b"), (100, "c", "d")] {
        client.sends(at, &format!("CON [MID={a}, TOK=t], PUT, /x, 2:0/0/64, 1:0/1/64, Size1:100, 0..64"));
        client.gets(at + 10, &format!("ACK [MID={a}, TOK=t], 2.31, 1:0/1/64"));
        client.sends(at + 10, &format!("CON [MID={b}, TOK=t], PUT, /x, 2:0/0/64, 1:1/0/64, 64..100"));
        client.gets(at + 100, &format!("ACK [MID={b}, TOK=t], 4.08"));
    }
    // Not for ever.
    client.is_answered(200, id, "4.08");
}

#[test]
fn client_sends_smaller_blocks_where_the_first_is_too_large() {
    // §2.9.3: 4.13 with a smaller size in Block1.
    let mut client = with_blocks(64);
    let id = client.asks(0, "PUT, /x, 0..60");
    client.sends(0, "CON [MID=a, TOK=t], PUT, /x, 2:0/0/64, 0..60");
    client.gets(10, "ACK [MID=a, TOK=t], 4.13, 1:0/0/32");
    client.sends(10, "CON [MID=b, TOK=t], PUT, /x, 2:0/0/64, 1:0/1/32, Size1:60, 0..32");
    client.gets(20, "ACK [MID=b, TOK=t], 2.31, 1:0/1/32");
    client.sends(20, "CON [MID=c, TOK=t], PUT, /x, 2:0/0/64, 1:1/0/32, 32..60");
    client.gets(30, "ACK [MID=c, TOK=t], 4.13, Size1:10");
    client.is_answered(30, id, "4.13");
}

#[test]
fn body_that_changes_on_its_way_is_asked_for_once_more() {
    let mut client = with_blocks(1024);
    let id = client.asks(0, "GET, /x");
    client.sends(0, "CON [MID=a, TOK=t], GET, /x");
    client.gets(10, "ACK [MID=a, TOK=t], 2.05, ETag:0x01, 2:0/1/64, 0..64");
    client.sends(10, "CON [MID=b, TOK=t], GET, /x, 2:1/0/64");
    client.gets(20, "ACK [MID=b, TOK=t], 2.05, ETag:0x02, 2:1/0/64, 164..200");
    client.sends(20, "CON [MID=c, TOK=t], GET, /x");
    client.gets(30, "ACK [MID=c, TOK=t], 2.05, ETag:0x02, 2:0/1/64, 100..164");
    client.sends(30, "CON [MID=d, TOK=t], GET, /x, 2:1/0/64");
    client.gets(40, "ACK [MID=d, TOK=t], 2.05, ETag:0x02, 2:1/0/64, 164..200");
    client.is_answered(40, id, "2.05, ETag:0x02, 100..200");
}

#[test]
fn body_that_never_fits_together_fails() {
    let mut client = with_blocks(1024);
    let id = client.asks(0, "GET, /x");
    for at in [0, 20] {
        client.sends(at, "CON [MID=a, TOK=t], GET, /x".replace("=a", &format!("=a{at}")).as_str());
        client.gets(at + 10, &format!("ACK [MID=a{at}, TOK=t], 2.05, ETag:0x01, 2:0/1/64, 0..64"));
        client.sends(at + 10, &format!("CON [MID=b{at}, TOK=t], GET, /x, 2:1/0/64"));
        client.gets(at + 20, &format!("ACK [MID=b{at}, TOK=t], 2.05, ETag:0x02, 2:1/0/64, 164..200"));
    }
    client.fails(40, id, RequestError::BlocksDiffer);
}

#[test]
fn post_is_not_repeated_where_its_answer_does_not_fit_together() {
    let mut client = with_blocks(1024);
    let id = client.asks(0, "POST, /x, \"text\"");
    client.sends(0, "CON [MID=a, TOK=t], POST, /x, \"text\"");
    client.gets(10, "ACK [MID=a, TOK=t], 2.04, ETag:0x01, 2:0/1/64, 0..64");
    client.sends(10, "CON [MID=b, TOK=t], POST, /x, 2:1/0/64");
    client.gets(20, "ACK [MID=b, TOK=t], 2.04, ETag:0x02, 2:1/0/64, 164..200");
    client.fails(20, id, RequestError::BlocksDiffer);
}

#[test]
fn error_in_the_middle_of_a_body_is_the_answer() {
    let mut client = with_blocks(1024);
    let id = client.asks(0, "GET, /x");
    client.sends(0, "CON [MID=a, TOK=t], GET, /x");
    client.gets(10, "ACK [MID=a, TOK=t], 2.05, ETag:0x01, 2:0/1/64, 0..64");
    client.sends(10, "CON [MID=b, TOK=t], GET, /x, 2:1/0/64");
    client.gets(20, "ACK [MID=b, TOK=t], 4.04, \"gone\"");
    client.is_answered(20, id, "4.04, \"gone\"");
}

#[test]
fn client_takes_no_body_over_its_limit() {
    let mut config = config();
    config.transfers.body = 100;
    let mut client = with(config);
    let id = client.asks(0, "GET, /x");
    client.sends(0, "CON [MID=a, TOK=t], GET, /x");
    client.gets(10, "ACK [MID=a, TOK=t], 2.05, 2:0/1/64, 0..64");
    client.sends(10, "CON [MID=b, TOK=t], GET, /x, 2:1/0/64");
    client.gets(20, "ACK [MID=b, TOK=t], 2.05, 2:1/1/64, 64..128");
    client.fails(20, id, RequestError::TooLarge(100));
}

#[test]
fn separate_blocks_are_acknowledged_each() {
    let mut client = with_blocks(1024);
    let id = client.asks(0, "GET, /x");
    client.sends(0, "CON [MID=a, TOK=t], GET, /x");
    client.gets(100, "ACK [MID=a]");
    client.gets(5_000, "CON [MID=1, TOK=t], 2.05, 2:0/1/64, 0..64");
    client.sends(5_000, "ACK [MID=1]");
    client.sends(5_000, "CON [MID=b, TOK=t], GET, /x, 2:1/0/64");
    client.gets(5_100, "ACK [MID=b]");
    // The first acknowledgement was lost.
    client.gets(7_000, "CON [MID=1, TOK=t], 2.05, 2:0/1/64, 0..64");
    client.sends(7_000, "ACK [MID=1]");
    client.gets(9_000, "CON [MID=2, TOK=t], 2.05, 2:1/0/64, 64..100");
    client.sends(9_000, "ACK [MID=2]");
    client.is_answered(9_000, id, "2.05, 0..100");
    client.is_empty(1_000_000);
}

#[test]
fn access_token_and_content_format_are_not_sent_with_requests_for_later_blocks() {
    let mut client = with_blocks(1024);
    let id = client.asks(0, "POST, /x, CF:60, Access-Token:\"TOK\", Accept:60, \"text\"");
    client.sends(0, "CON [MID=a, TOK=t], POST, /x, CF:60, Accept:60, Access-Token:\"TOK\", \"text\"");
    client.gets(10, "ACK [MID=a, TOK=t], 2.04, 2:0/1/64, 0..64");
    client.sends(10, "CON [MID=b, TOK=t], POST, /x, Accept:60, 2:1/0/64");
    client.gets(20, "ACK [MID=b, TOK=t], 2.04, 2:1/0/64, 64..100");
    client.is_answered(20, id, "2.04, 0..100");
}

#[test]
fn long_bodies_in_the_smallest_blocks_arrive_both_ways() {
    // More than 4096 blocks each way: NUM takes three bytes.
    let (mut client, mut server) = (endpoint_with_blocks(16), endpoint_with_blocks(1024));
    let length = 70_000_usize;
    let id = client.request(PEER, request(&format!("PUT, /x, 0..{length}")), Instant::START);
    let mut now = Instant::START;
    let mut datagrams = 0;
    let answer = loop {
        now = now + Duration::from_millis(10);
        client.advance(now);
        server.advance(now);
        while let Some((_, datagram)) = client.poll_datagram() {
            datagrams += 1;
            server.handle(PEER, &datagram, now);
        }
        while let Some(event) = server.poll_event() {
            let Event::Request { key, request: asked, .. } = event else { panic!("{event:?}") };
            assert_eq!(asked, request(&format!("PUT, /x, 0..{length}")));
            server.respond(key, response(&format!("2.04, 5..{}", length + 5)), now);
        }
        while let Some((_, datagram)) = server.poll_datagram() {
            client.handle(PEER, &datagram, now);
        }
        if let Some(event) = client.poll_event() {
            break event;
        }
    };
    let Event::Response { id: answered, response: answer, .. } = answer else { panic!("{answer:?}") };
    assert_eq!((answered, answer.payload), (id, response(&format!("2.04, 5..{}", length + 5)).payload));
    assert_eq!(
        datagrams,
        2 * length.div_ceil(16) - 1,
        "the last block of one is answered by the first of the other"
    );
}
