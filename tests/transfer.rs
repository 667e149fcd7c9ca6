//! Blockwise transfers, on the server's side, as stories in virtual time (RFC 7959; RFC 9175 §3 for Request-Tag).

#![cfg(test)]

#[expect(clippy::allow_attributes, reason = "each test file uses another part of it")]
#[allow(dead_code, reason = "each test file uses another part of it")]
mod support;

use support::endpoint::{OTHER, config, with, with_blocks};
use support::figure::Figure;

#[test]
fn figures_of_rfc_7959_as_server() {
    let figures = Figure::all("rfc7959");
    assert_eq!(figures.iter().filter(|figure| figure.has("server")).map(Figure::play_as_server).count(), 9);
}

#[test]
fn figures_of_rfc_7959_as_client() {
    let figures = Figure::all("rfc7959");
    assert_eq!(figures.iter().filter(|figure| figure.has("client")).map(Figure::play_as_client).count(), 8);
}

// The server's side of a response in blocks (§2.4).

#[test]
fn repeated_request_for_a_block_is_answered_with_the_same_block() {
    let mut server = with_blocks(64);
    server.gets(0, "CON [MID=1, TOK=0xaa], GET, /x");
    let key = server.is_asked(0, "GET, /x");
    server.answers(0, key, "2.05, 0..150");
    server.sends(0, "ACK [MID=1, TOK=0xaa], 2.05, ETag:e, 2:0/1/64, 0..64");
    for at in [10, 20, 30] {
        // Each with an id of its own: these are no duplicates.
        server.gets(at, &format!("CON [MID={at}, TOK=0xaa], GET, /x, 2:1/0/64"));
        server.sends(at, &format!("ACK [MID={at}, TOK=0xaa], 2.05, ETag:e, 2:1/1/64, 64..128"));
    }
    // Back to the block before, and on to the end, all of the same body.
    server.gets(40, "CON [MID=40, TOK=0xaa], GET, /x, 2:2/0/64");
    server.sends(40, "ACK [MID=40, TOK=0xaa], 2.05, ETag:e, 2:2/0/64, 128..150");
    server.gets(50, "CON [MID=50, TOK=0xaa], GET, /x, 2:1/0/64");
    server.sends(50, "ACK [MID=50, TOK=0xaa], 2.05, ETag:e, 2:1/1/64, 64..128");
    // All of it at once needs no block, and no body to be held.
    server.gets(60, "CON [MID=60, TOK=0xaa], GET, /x");
    let key = server.is_asked(60, "GET, /x");
    server.answers(60, key, "2.05, 0..64");
    server.sends(60, "ACK [MID=60, TOK=0xaa], 2.05, 0..64");
    server.is_empty(1_000_000);
}

#[test]
fn new_token_for_each_block_goes_on_with_the_same_body() {
    // libcoap 4.3.5 does so; its first request has no token, and each carries the same Request-Tag.
    let mut server = with_blocks(64);
    server.gets(0, "CON [MID=1], GET, /x, Request-Tag:0x01");
    let key = server.is_asked(0, "GET, /x, Request-Tag:0x01");
    server.answers(0, key, "2.05, 0..150");
    server.sends(0, "ACK [MID=1], 2.05, ETag:e, 2:0/1/64, 0..64");
    server.gets(10, "CON [MID=2, TOK=0x0101], GET, /x, 2:1/0/64, Request-Tag:0x01");
    server.sends(10, "ACK [MID=2, TOK=0x0101], 2.05, ETag:e, 2:1/1/64, 64..128");
    server.gets(20, "CON [MID=3, TOK=0x0102], GET, /x, 2:2/0/64, Request-Tag:0x01");
    server.sends(20, "ACK [MID=3, TOK=0x0102], 2.05, ETag:e, 2:2/0/64, 128..150");
    server.is_empty(1_000_000);
}

#[test]
fn bodies_of_different_queries_are_kept_apart() {
    let mut server = with_blocks(16);
    server.gets(0, "CON [MID=1, TOK=0xaa], GET, /x, ?a=1");
    let key = server.is_asked(0, "GET, /x, ?a=1");
    server.answers(0, key, "2.05, 0..40");
    server.sends(0, "ACK [MID=1, TOK=0xaa], 2.05, ETag:e1, 2:0/1/16, 0..16");
    server.gets(10, "CON [MID=2, TOK=0xaa], GET, /x, ?a=2");
    let key = server.is_asked(10, "GET, /x, ?a=2");
    server.answers(10, key, "2.05, 100..140");
    server.sends(10, "ACK [MID=2, TOK=0xaa], 2.05, ETag:e2, 2:0/1/16, 100..116");
    server.gets(20, "CON [MID=20, TOK=0xaa], GET, /x, ?a=1, 2:1/0/16");
    server.sends(20, "ACK [MID=20, TOK=0xaa], 2.05, ETag:e1, 2:1/1/16, 16..32");
    server.gets(30, "CON [MID=30, TOK=0xaa], GET, /x, ?a=2, 2:1/0/16");
    server.sends(30, "ACK [MID=30, TOK=0xaa], 2.05, ETag:e2, 2:1/1/16, 116..132");
    assert_ne!(server.named("e1"), server.named("e2"));
}

#[test]
fn bodies_of_different_peers_are_kept_apart() {
    let mut server = with_blocks(16);
    server.gets(0, "CON [MID=1, TOK=0xaa], GET, /x");
    let key = server.is_asked(0, "GET, /x");
    server.answers(0, key, "2.05, 0..40");
    server.sends(0, "ACK [MID=1, TOK=0xaa], 2.05, ETag:e1, 2:0/1/16, 0..16");
    server.with(OTHER).gets(10, "CON [MID=1, TOK=0xaa], GET, /x, 2:1/0/16");
    // To the other peer it is a request like any.
    let key = server.is_asked(10, "GET, /x");
    server.answers(10, key, "2.05, 100..140");
    server.with(OTHER).sends(10, "ACK [MID=1, TOK=0xaa], 2.05, ETag:e2, 2:1/1/16, 116..132");
}

#[test]
fn block_of_a_body_that_is_held_no_more_is_asked_anew_and_its_etag_tells() {
    let mut server = with_blocks(16);
    server.gets(0, "CON [MID=1, TOK=0xaa], GET, /x");
    let key = server.is_asked(0, "GET, /x");
    server.answers(0, key, "2.05, 0..40");
    server.sends(0, "ACK [MID=1, TOK=0xaa], 2.05, ETag:e1, 2:0/1/16, 0..16");
    server.sends_nothing(300_000);
    // The same body has the same ETag.
    server.gets(300_000, "CON [MID=2, TOK=0xaa], GET, /x, 2:1/0/16");
    let key = server.is_asked(300_000, "GET, /x");
    server.answers(300_000, key, "2.05, 0..40");
    server.sends(300_000, "ACK [MID=2, TOK=0xaa], 2.05, ETag:e1, 2:1/1/16, 16..32");
    server.sends_nothing(600_000);
    // Another has another.
    server.gets(600_000, "CON [MID=3, TOK=0xaa], GET, /x, 2:2/0/16");
    let key = server.is_asked(600_000, "GET, /x");
    server.answers(600_000, key, "2.05, 100..140");
    server.sends(600_000, "ACK [MID=3, TOK=0xaa], 2.05, ETag:e2, 2:2/0/16, 132..140");
    assert_ne!(server.named("e1"), server.named("e2"));
    server.is_empty(1_000_000);
}

#[test]
fn answer_to_a_post_is_not_made_twice_for_a_block_of_it() {
    let mut server = with_blocks(16);
    server.gets(0, "CON [MID=1, TOK=0xaa], POST, /x, 2:1/0/16");
    server.sends(0, "ACK [MID=1, TOK=0xaa], 4.08, \"the response's body is held no more\"");
}

#[test]
fn block_beyond_the_end_is_a_bad_request() {
    let mut server = with_blocks(16);
    server.gets(0, "CON [MID=1, TOK=0xaa], GET, /x");
    let key = server.is_asked(0, "GET, /x");
    server.answers(0, key, "2.05, 0..32");
    server.sends(0, "ACK [MID=1, TOK=0xaa], 2.05, ETag:e, 2:0/1/16, 0..16");
    server.gets(10, "CON [MID=2, TOK=0xaa], GET, /x, 2:2/0/16");
    server.sends(10, "ACK [MID=2, TOK=0xaa], 4.00, \"block is beyond the end of the body\"");
    server.gets(20, "CON [MID=3, TOK=0xaa], GET, /x, 2:1048575/0/1024");
    server.sends(20, "ACK [MID=3, TOK=0xaa], 4.00, \"block is beyond the end of the body\"");
    server.gets(30, "CON [MID=4, TOK=0xaa], GET, /x, 2:1/0/16");
    server.sends(30, "ACK [MID=4, TOK=0xaa], 2.05, ETag:e, 2:1/0/16, 16..32");
}

#[test]
fn reserved_block_size_is_a_bad_request() {
    // §2.2: SZX 7.
    let mut server = with_blocks(64);
    server.gets(0, "CON [MID=1, TOK=0xaa], GET, /x, opt23:0x07");
    server.sends(0, "ACK [MID=1, TOK=0xaa], 4.00, \"block size exponent 7 is reserved\"");
    server.gets(10, "CON [MID=2, TOK=0xaa], PUT, /x, opt27:0x0f, 0..64");
    server.sends(10, "ACK [MID=2, TOK=0xaa], 4.00, \"block size exponent 7 is reserved\"");
}

#[test]
fn size_is_told_to_those_who_ask() {
    // §4: Size2 of 0 in a request asks.
    let mut server = with_blocks(64);
    server.gets(0, "CON [MID=1, TOK=0xaa], GET, /x, 2:0/0/64, Size2:0");
    let key = server.is_asked(0, "GET, /x");
    server.answers(0, key, "2.05, 0..1000");
    server.sends(0, "ACK [MID=1, TOK=0xaa], 2.05, ETag:e, 2:0/1/64, Size2:1000, 0..64");
    server.gets(10, "CON [MID=2, TOK=0xaa], GET, /x, 2:1/0/64");
    server.sends(10, "ACK [MID=2, TOK=0xaa], 2.05, ETag:e, 2:1/1/64, 64..128");
}

#[test]
fn error_of_many_blocks_is_told_in_blocks() {
    let mut server = with_blocks(64);
    server.gets(0, "CON [MID=1, TOK=0xaa], GET, /x");
    let key = server.is_asked(0, "GET, /x");
    server.answers(0, key, "4.04, CF:60, 0..100");
    server.sends(0, "ACK [MID=1, TOK=0xaa], 4.04, ETag:e, CF:60, 2:0/1/64, 0..64");
    server.gets(10, "CON [MID=2, TOK=0xaa], GET, /x, 2:1/0/64");
    server.sends(10, "ACK [MID=2, TOK=0xaa], 4.04, ETag:e, CF:60, 2:1/0/64, 64..100");
}

#[test]
fn slow_first_block_comes_separately_and_the_others_at_once() {
    let mut server = with_blocks(64);
    server.gets(0, "CON [MID=1, TOK=0xaa], GET, /x");
    let key = server.is_asked(0, "GET, /x");
    server.sends(1_000, "ACK [MID=1]");
    server.answers(9_000, key, "2.05, 0..100");
    server.sends(9_000, "CON [MID=s, TOK=0xaa], 2.05, ETag:e, 2:0/1/64, 0..64");
    server.gets(9_100, "ACK [MID=s]");
    server.gets(9_200, "CON [MID=2, TOK=0xaa], GET, /x, 2:1/0/64");
    server.sends(9_200, "ACK [MID=2, TOK=0xaa], 2.05, ETag:e, 2:1/0/64, 64..100");
    server.is_empty(1_000_000);
}

#[test]
fn unconfirmed_requests_get_unconfirmed_blocks() {
    let mut server = with_blocks(64);
    server.gets(0, "NON [MID=1, TOK=0xaa], GET, /x");
    let key = server.is_asked(0, "GET, /x");
    server.answers(50, key, "2.05, 0..100");
    server.sends(50, "NON [MID=a, TOK=0xaa], 2.05, ETag:e, 2:0/1/64, 0..64");
    server.gets(60, "NON [MID=2, TOK=0xaa], GET, /x, 2:1/0/64");
    server.sends(60, "NON [MID=b, TOK=0xaa], 2.05, ETag:e, 2:1/0/64, 64..100");
    server.is_empty(1_000_000);
}

#[test]
fn mebibyte_in_blocks_of_16_bytes_has_numbers_beyond_4096() {
    let mut server = with_blocks(1024);
    server.gets(0, "CON [MID=0, TOK=0xaa], GET, /x, 2:0/0/16");
    let key = server.is_asked(0, "GET, /x");
    server.answers(0, key, "2.05, 0..1048576");
    server.sends(0, "ACK [MID=0, TOK=0xaa], 2.05, ETag:e, 2:0/1/16, 0..16");
    // Two of each size of the option: one byte, two and three; and the last.
    for (at, number) in [1, 15, 16, 4095, 4096, 4097, 65_534].into_iter().zip(1..) {
        let (from, to) = (at * 16, at * 16 + 16);
        server.gets(number, &format!("CON [MID={number}, TOK=0xaa], GET, /x, 2:{at}/0/16"));
        server
            .sends(number, &format!("ACK [MID={number}, TOK=0xaa], 2.05, ETag:e, 2:{at}/1/16, {from}..{to}"));
    }
    server.gets(10, "CON [MID=10, TOK=0xaa], GET, /x, 2:65535/0/16");
    server.sends(10, "ACK [MID=10, TOK=0xaa], 2.05, ETag:e, 2:65535/0/16, 1048560..1048576");
}

// The server's side of a request in blocks (§2.5).

#[test]
fn repeated_block_is_accepted_and_counted_once() {
    let mut server = with_blocks(64);
    for (at, block, part) in [
        (0, "1:0/1/64", "0..64"),
        (10, "1:1/1/64", "64..128"),
        (20, "1:1/1/64", "64..128"),
        (30, "1:0/1/64", "0..64"),
        (40, "1:1/1/64", "64..128"),
    ] {
        server.gets(at, &format!("CON [MID={at}, TOK=0xaa], PUT, /x, {block}, {part}"));
        server.sends(at, &format!("ACK [MID={at}, TOK=0xaa], 2.31, {block}"));
    }
    server.gets(50, "CON [MID=50, TOK=0xaa], PUT, /x, 1:2/0/64, 128..150");
    let key = server.is_asked(50, "PUT, /x, 0..150");
    server.answers(50, key, "2.04");
    server.sends(50, "ACK [MID=50, TOK=0xaa], 2.04, 1:2/0/64");
    server.is_empty(1_000_000);
}

#[test]
fn gap_between_blocks_is_an_incomplete_request() {
    let mut server = with_blocks(64);
    server.gets(0, "CON [MID=1, TOK=0xaa], PUT, /x, 1:0/1/64, 0..64");
    server.sends(0, "ACK [MID=1, TOK=0xaa], 2.31, 1:0/1/64");
    server.gets(10, "CON [MID=2, TOK=0xaa], PUT, /x, 1:2/0/64, 128..150");
    server.sends(10, "ACK [MID=2, TOK=0xaa], 4.08, \"block out of order: start again from block 0\"");
    // From the beginning it works.
    server.gets(20, "CON [MID=3, TOK=0xaa], PUT, /x, 1:0/1/64, 0..64");
    server.sends(20, "ACK [MID=3, TOK=0xaa], 2.31, 1:0/1/64");
    server.gets(30, "CON [MID=4, TOK=0xaa], PUT, /x, 1:1/0/64, 64..100");
    let key = server.is_asked(30, "PUT, /x, 0..100");
    server.answers(30, key, "2.04");
    server.sends(30, "ACK [MID=4, TOK=0xaa], 2.04, 1:1/0/64");
}

#[test]
fn block_without_those_before_it_is_an_incomplete_request() {
    let mut server = with_blocks(64);
    server.gets(0, "CON [MID=1, TOK=0xaa], PUT, /x, 1:1/0/64, 64..100");
    server.sends(0, "ACK [MID=1, TOK=0xaa], 4.08, \"earlier blocks are missing: start again from block 0\"");
}

#[test]
fn later_block_that_says_something_else_is_no_repeat() {
    let mut server = with_blocks(64);
    server.gets(0, "CON [MID=1, TOK=0xaa], PUT, /x, 1:0/1/64, 0..64");
    server.sends(0, "ACK [MID=1, TOK=0xaa], 2.31, 1:0/1/64");
    server.gets(10, "CON [MID=2, TOK=0xaa], PUT, /x, 1:1/1/64, 64..128");
    server.sends(10, "ACK [MID=2, TOK=0xaa], 2.31, 1:1/1/64");
    server.gets(20, "CON [MID=3, TOK=0xaa], PUT, /x, 1:1/1/64, 164..228");
    server.sends(20, "ACK [MID=3, TOK=0xaa], 4.08, \"block out of order: start again from block 0\"");
}

#[test]
fn block_that_is_not_full_is_a_bad_request() {
    // §2.2: only the last may be shorter, and none longer.
    let mut server = with_blocks(64);
    server.gets(0, "CON [MID=1, TOK=0xaa], PUT, /x, 1:0/1/64, 0..63");
    server.sends(0, "ACK [MID=1, TOK=0xaa], 4.00, \"block and its size differ\"");
    server.gets(10, "CON [MID=2, TOK=0xaa], PUT, /x, 1:0/1/64, 0..65");
    server.sends(10, "ACK [MID=2, TOK=0xaa], 4.00, \"block and its size differ\"");
    server.gets(20, "CON [MID=3, TOK=0xaa], PUT, /x, 1:0/0/64, 0..65");
    server.sends(20, "ACK [MID=3, TOK=0xaa], 4.00, \"block and its size differ\"");
    // The only block is complete at once.
    server.gets(30, "CON [MID=4, TOK=0xaa], PUT, /x, 1:0/0/64, 0..64");
    let key = server.is_asked(30, "PUT, /x, 0..64");
    server.answers(30, key, "2.04");
    server.sends(30, "ACK [MID=4, TOK=0xaa], 2.04, 1:0/0/64");
}

#[test]
fn client_that_changes_the_size_on_its_way_is_understood() {
    let mut server = with_blocks(1024);
    server.gets(0, "CON [MID=1, TOK=0xaa], PUT, /x, 1:0/1/64, 0..64");
    server.sends(0, "ACK [MID=1, TOK=0xaa], 2.31, 1:0/1/64");
    server.gets(10, "CON [MID=2, TOK=0xaa], PUT, /x, 1:4/1/16, 64..80");
    server.sends(10, "ACK [MID=2, TOK=0xaa], 2.31, 1:4/1/16");
    server.gets(20, "CON [MID=3, TOK=0xaa], PUT, /x, 1:5/0/16, 80..90");
    let key = server.is_asked(20, "PUT, /x, 0..90");
    server.answers(20, key, "2.04");
    server.sends(20, "ACK [MID=3, TOK=0xaa], 2.04, 1:5/0/16");
}

#[test]
fn too_large_body_is_refused_with_the_size_that_would_do() {
    // §2.9.3.
    let mut config = config();
    config.transfers.body = 1_000;
    let mut server = with(config);
    let refusal = "4.13, Size1:1000, \"body is larger than the limit\"";
    // Announced.
    server.gets(0, "CON [MID=1, TOK=0xaa], PUT, /x, 1:0/1/64, Size1:1001, 0..64");
    server.sends(0, &format!("ACK [MID=1, TOK=0xaa], {refusal}"));
    // Found out on the way: 15 blocks fit, and not all of the sixteenth.
    for number in 0..15 {
        let (at, from, to) = (number + 10, number * 64, number * 64 + 64);
        server.gets(at, &format!("CON [MID={at}, TOK=0xaa], PUT, /x, 1:{number}/1/64, {from}..{to}"));
        server.sends(at, &format!("ACK [MID={at}, TOK=0xaa], 2.31, 1:{number}/1/64"));
    }
    server.gets(30, "CON [MID=30, TOK=0xaa], PUT, /x, 1:15/0/64, 960..1001");
    server.sends(30, &format!("ACK [MID=30, TOK=0xaa], {refusal}"));
    // In one piece.
    server.gets(40, "CON [MID=40, TOK=0xaa], PUT, /x, 0..1001");
    server.sends(40, &format!("ACK [MID=40, TOK=0xaa], {refusal}"));
    // Just not.
    server.gets(50, "CON [MID=50, TOK=0xaa], PUT, /x, 1:0/0/1024, Size1:1000, 0..1000");
    let key = server.is_asked(50, "PUT, /x, 0..1000");
    server.answers(50, key, "2.04");
    server.sends(50, "ACK [MID=50, TOK=0xaa], 2.04, 1:0/0/1024");
    server.is_empty(1_000_000);
}

#[test]
fn bodies_with_different_request_tags_are_put_together_apart() {
    // RFC 9175 §3.3.
    let mut server = with_blocks(64);
    server.gets(0, "CON [MID=1, TOK=0xaa], PUT, /x, 1:0/1/64, Request-Tag:0x01, 0..64");
    server.sends(0, "ACK [MID=1, TOK=0xaa], 2.31, 1:0/1/64");
    server.gets(10, "CON [MID=2, TOK=0xbb], PUT, /x, 1:0/1/64, Request-Tag:0x02, 200..264");
    server.sends(10, "ACK [MID=2, TOK=0xbb], 2.31, 1:0/1/64");
    server.gets(20, "CON [MID=3, TOK=0xcc], PUT, /x, 1:0/1/64, 300..364");
    server.sends(20, "ACK [MID=3, TOK=0xcc], 2.31, 1:0/1/64");
    server.gets(30, "CON [MID=4, TOK=0xaa], PUT, /x, 1:1/0/64, Request-Tag:0x01, 64..100");
    let key = server.is_asked(30, "PUT, /x, Request-Tag:0x01, 0..100");
    server.answers(30, key, "2.04");
    server.sends(30, "ACK [MID=4, TOK=0xaa], 2.04, 1:1/0/64");
    server.gets(40, "CON [MID=5, TOK=0xbb], PUT, /x, 1:1/0/64, Request-Tag:0x02, 264..300");
    let key = server.is_asked(40, "PUT, /x, Request-Tag:0x02, 200..300");
    server.answers(40, key, "2.04");
    server.sends(40, "ACK [MID=5, TOK=0xbb], 2.04, 1:1/0/64");
    server.gets(50, "CON [MID=6, TOK=0xcc], PUT, /x, 1:1/0/64, 364..400");
    let key = server.is_asked(50, "PUT, /x, 300..400");
    server.answers(50, key, "2.04");
    server.sends(50, "ACK [MID=6, TOK=0xcc], 2.04, 1:1/0/64");
    server.is_empty(1_000_000);
}

#[test]
fn blocks_of_another_method_path_or_query_belong_to_another_body() {
    let mut server = with_blocks(64);
    server.gets(0, "CON [MID=1, TOK=0xaa], PUT, /x, ?a=1, 1:0/1/64, 0..64");
    server.sends(0, "ACK [MID=1, TOK=0xaa], 2.31, 1:0/1/64");
    for (at, other) in [(10, "POST, /x, ?a=1"), (20, "PUT, /y, ?a=1"), (30, "PUT, /x, ?a=2"), (40, "PUT, /x")]
    {
        server.gets(at, &format!("CON [MID={at}, TOK=0xaa], {other}, 1:1/0/64, 64..100"));
        server.sends(
            at,
            &format!(
                "ACK [MID={at}, TOK=0xaa], 4.08, \"earlier blocks are missing: start again from block 0\""
            ),
        );
    }
    server.gets(50, "CON [MID=50, TOK=0xaa], PUT, /x, ?a=1, 1:1/0/64, 64..100");
    let key = server.is_asked(50, "PUT, /x, ?a=1, 0..100");
    server.answers(50, key, "2.04");
    server.sends(50, "ACK [MID=50, TOK=0xaa], 2.04, 1:1/0/64");
}

#[test]
fn unfinished_body_expires() {
    let mut server = with_blocks(64);
    server.gets(0, "CON [MID=1, TOK=0xaa], PUT, /x, 1:0/1/64, 0..64");
    server.sends(0, "ACK [MID=1, TOK=0xaa], 2.31, 1:0/1/64");
    // Each block keeps it alive.
    server.gets(200_000, "CON [MID=2, TOK=0xaa], PUT, /x, 1:1/1/64, 64..128");
    server.sends(200_000, "ACK [MID=2, TOK=0xaa], 2.31, 1:1/1/64");
    server.gets(446_999, "CON [MID=3, TOK=0xaa], PUT, /x, 1:2/1/64, 128..192");
    server.sends(446_999, "ACK [MID=3, TOK=0xaa], 2.31, 1:2/1/64");
    server.gets(446_999 + 247_000, "CON [MID=4, TOK=0xaa], PUT, /x, 1:3/0/64, 192..200");
    server.sends(
        446_999 + 247_000,
        "ACK [MID=4, TOK=0xaa], 4.08, \"earlier blocks are missing: start again from block 0\"",
    );
    server.is_empty(2_000_000);
}

#[test]
fn unfinished_bodies_are_bounded_in_number_and_the_oldest_goes() {
    let mut config = config();
    config.transfers.bodies = 2;
    let mut server = with(config);
    for at in 0..3 {
        server.gets(at, &format!("CON [MID={at}, TOK=0xaa], PUT, /x{at}, 1:0/1/16, 0..16"));
        server.sends(at, &format!("ACK [MID={at}, TOK=0xaa], 2.31, 1:0/1/16"));
    }
    server.gets(10, "CON [MID=10, TOK=0xaa], PUT, /x0, 1:1/0/16, 16..20");
    server
        .sends(10, "ACK [MID=10, TOK=0xaa], 4.08, \"earlier blocks are missing: start again from block 0\"");
    for (at, path) in [(11, "/x1"), (12, "/x2")] {
        server.gets(at, &format!("CON [MID={at}, TOK=0xaa], PUT, {path}, 1:1/0/16, 16..20"));
        let key = server.is_asked(at, &format!("PUT, {path}, 0..20"));
        server.answers(at, key, "2.04");
        server.sends(at, &format!("ACK [MID={at}, TOK=0xaa], 2.04, 1:1/0/16"));
    }
}

#[test]
fn unfinished_bodies_are_bounded_in_bytes_and_the_oldest_goes() {
    let mut config = config();
    config.transfers.bytes = 200;
    let mut server = with(config);
    for (at, path) in [(0, "/a"), (10, "/b")] {
        server.gets(at, &format!("CON [MID={at}, TOK=0xaa], PUT, {path}, 1:0/1/64, 0..64"));
        server.sends(at, &format!("ACK [MID={at}, TOK=0xaa], 2.31, 1:0/1/64"));
        server.gets(at + 1, &format!("CON [MID={}, TOK=0xaa], PUT, {path}, 1:1/1/64, 64..128", at + 1));
        server.sends(at + 1, &format!("ACK [MID={}, TOK=0xaa], 2.31, 1:1/1/64", at + 1));
    }
    server.gets(20, "CON [MID=20, TOK=0xaa], PUT, /a, 1:2/0/64, 128..130");
    server
        .sends(20, "ACK [MID=20, TOK=0xaa], 4.08, \"earlier blocks are missing: start again from block 0\"");
    server.gets(30, "CON [MID=30, TOK=0xaa], PUT, /b, 1:2/0/64, 128..130");
    let key = server.is_asked(30, "PUT, /b, 0..130");
    server.answers(30, key, "2.04");
    server.sends(30, "ACK [MID=30, TOK=0xaa], 2.04, 1:2/0/64");
}

#[test]
fn request_of_many_blocks_answered_slowly_is_acknowledged_first() {
    let mut server = with_blocks(64);
    server.gets(0, "CON [MID=1, TOK=0xaa], PUT, /x, 1:0/1/64, 0..64");
    server.sends(0, "ACK [MID=1, TOK=0xaa], 2.31, 1:0/1/64");
    server.gets(10, "CON [MID=2, TOK=0xaa], PUT, /x, 1:1/0/64, 64..100");
    let key = server.is_asked(10, "PUT, /x, 0..100");
    server.sends(1_010, "ACK [MID=2]");
    // A repeat of the last block is a duplicate; its request is done once.
    server.gets(2_010, "CON [MID=2, TOK=0xaa], PUT, /x, 1:1/0/64, 64..100");
    server.sends(2_010, "ACK [MID=2]");
    server.answers(3_000, key, "2.04");
    server.sends(3_000, "CON [MID=s, TOK=0xaa], 2.04, 1:1/0/64");
    server.gets(3_100, "ACK [MID=s]");
    server.is_empty(1_000_000);
}

#[test]
fn later_blocks_without_the_access_token_go_on_with_the_body_and_those_with_another_do_not() {
    let mut server = with_blocks(16);
    server.gets(0, "CON [MID=1, TOK=0xaa], GET, /x, Access-Token:\"A\"");
    let key = server.is_asked(0, "GET, /x, Access-Token:\"A\"");
    server.answers(0, key, "2.05, 0..40");
    server.sends(0, "ACK [MID=1, TOK=0xaa], 2.05, ETag:e, 2:0/1/16, 0..16");
    server.gets(10, "CON [MID=2, TOK=0xaa], GET, /x, 2:1/0/16");
    server.sends(10, "ACK [MID=2, TOK=0xaa], 2.05, ETag:e, 2:1/1/16, 16..32");
    server.gets(20, "CON [MID=3, TOK=0xaa], GET, /x, 2:2/0/16, Access-Token:\"A\"");
    server.sends(20, "ACK [MID=3, TOK=0xaa], 2.05, ETag:e, 2:2/0/16, 32..40");
    server.gets(30, "CON [MID=4, TOK=0xaa], GET, /x, 2:1/0/16, Access-Token:\"B\"");
    let key = server.is_asked(30, "GET, /x, Access-Token:\"B\"");
    server.answers(30, key, "4.01");
    server.sends(30, "ACK [MID=4, TOK=0xaa], 4.01");
}

#[test]
fn answers_under_two_tokens_at_once_are_told_apart_by_their_etag() {
    // To RFC 7959 both are one resource: the later answer takes the earlier one's place.
    let mut server = with_blocks(16);
    server.gets(0, "CON [MID=1, TOK=0x01], GET, /x");
    let first = server.is_asked(0, "GET, /x");
    server.gets(10, "CON [MID=2, TOK=0x02], GET, /x");
    let second = server.is_asked(10, "GET, /x");
    server.answers(20, first, "2.05, 0..40");
    server.sends(20, "ACK [MID=1, TOK=0x01], 2.05, ETag:e1, 2:0/1/16, 0..16");
    server.answers(30, second, "2.05, 100..140");
    server.sends(30, "ACK [MID=2, TOK=0x02], 2.05, ETag:e2, 2:0/1/16, 100..116");
    server.gets(40, "CON [MID=3, TOK=0x01], GET, /x, 2:1/0/16");
    server.sends(40, "ACK [MID=3, TOK=0x01], 2.05, ETag:e2, 2:1/1/16, 116..132");
    assert_ne!(server.named("e1"), server.named("e2"));
}
