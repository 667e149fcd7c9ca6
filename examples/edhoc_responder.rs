//! A CoAP server on the loopback that agrees on keys by EDHOC and answers what is protected with them: for trials with other programs, as
//! `tests/interop/edhoc.py` makes them.
//!
//! ```text
//! cargo run --example edhoc_responder -- KID X Y       the initiator's key id and public key, in hexadecimal
//! ```
//!
//! It prints its address, then its own credential (a CWT Claims Set), then what it sees, and ends after ten seconds of silence. Its keys are
//! those of a fixed seed, and worth nothing.

#![expect(clippy::indexing_slicing, reason = "an example fails by panicking")]

use std::error::Error;
use std::net::UdpSocket;
use std::time::Duration;

use lowband::coap::Address;
use lowband::coap::Code;
use lowband::coap::Instant;
use lowband::coap::Kind;
use lowband::coap::Message;
use lowband::coap::MessageId;
use lowband::coap::Response;
use lowband::security::edhoc::Config;
use lowband::security::edhoc::Credential;
use lowband::security::edhoc::Established;
use lowband::security::edhoc::Identity;
use lowband::security::edhoc::KeyPair;
use lowband::security::edhoc::PublicKey;
use lowband::security::edhoc::Responder;
use lowband::security::edhoc::is_combined;
use lowband::security::edhoc::is_edhoc;
use lowband::security::oscore::Challenges;
use lowband::security::oscore::Context;
use lowband::security::oscore::Opened;

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<Vec<u8>> =
        std::env::args().skip(1).map(|text| bytes(&text)).collect::<Result<_, _>>()?;
    let [kid, x, y] = arguments.as_slice() else { return Err("usage: edhoc_responder KID X Y".into()) };
    let socket = UdpSocket::bind("127.0.0.1:0")?;
    socket.set_read_timeout(Some(Duration::from_secs(10)))?;
    let pair = KeyPair::generate([0x6c; 32]);
    let own = Credential::new("gateway", &[0x20], pair.public())?;
    println!("listening {}", socket.local_addr()?);
    println!("credential {}", hex(own.ccs()));
    let mut server = Server {
        responder: Responder::new(Identity::new(pair, own)?, Config::default(), [1; 32]),
        context: None,
        seed: 0,
    };
    server.responder.insert(Credential::new("device", kid, PublicKey::from_coordinates(x, y)?)?);
    let mut buffer = [0; 2_048];
    for _ in 0..1_000 {
        let Ok((length, remote)) = socket.recv_from(&mut buffer) else { return Ok(()) };
        let address = Address { remote, local: socket.local_addr()? };
        let Ok(message) = Message::decode(&buffer[..length]) else { continue };
        if let Some(answer) = server.answer(address, message) {
            socket.send_to(&answer.encode(), remote)?;
        }
    }
    Ok(())
}

struct Server {
    responder: Responder,
    context: Option<Context>,
    seed: u8,
}

impl Server {
    fn answer(&mut self, address: Address, message: Message) -> Option<Message> {
        if !message.code.is_request() {
            return None;
        }
        let (id, token, length) = (message.id, message.token, message.payload.len());
        let piggyback = |Response { code, options, payload }| Message {
            kind: Kind::Acknowledgement,
            code,
            id,
            token,
            options,
            payload,
        };
        if is_edhoc(&message) {
            self.seed += 1;
            let answer = self.responder.receive(address, &message, |_| true, [self.seed; 32], Instant::START);
            println!(
                "edhoc {length} bytes, answered {} with {}",
                answer.response.code,
                answer.response.payload.len()
            );
            self.establish(answer.established);
            return Some(piggyback(answer.response));
        }
        let message = match is_combined(&message) {
            false => message,
            true => match self.responder.receive_combined(address, message, Instant::START) {
                Ok(combined) => {
                    println!(
                        "combined {length} bytes, of which {} are protected",
                        combined.sealed.payload.len()
                    );
                    self.establish(combined.established);
                    combined.sealed
                }
                Err(response) => return Some(piggyback(response)),
            },
        };
        self.serve(&message).or_else(|| Some(piggyback(Response::new(Code::UNAUTHORIZED))))
    }

    fn establish(&mut self, established: Option<Established>) {
        let Some(Established { kid, parameters }) = established else { return };
        println!("established with {} as {}", hex(&kid), hex(&parameters.recipient_id));
        let mut context = Context::new(&parameters).expect("they are of EDHOC");
        let _forgotten = context.reserve();
        self.context = Some(context);
    }

    fn serve(&mut self, message: &Message) -> Option<Message> {
        let context = self.context.as_mut()?;
        let challenges = Challenges::new([0; 32], Duration::from_secs(60));
        let opened = context.open_request(message, &challenges, Instant::START);
        let Ok(Opened::Request { message, mut binding }) = opened else { return None };
        println!("protected {} served", message.code);
        let payload = b"hello".to_vec().into();
        let (kind, id, token) = (Kind::Acknowledgement, MessageId(message.id.0), message.token);
        let response = Message { code: Code::CONTENT, token, payload, ..Message::empty(kind, id) };
        context.protect_response(&response, &mut binding).ok().map(|sealed| sealed.message)
    }
}

fn bytes(text: &str) -> Result<Vec<u8>, std::num::ParseIntError> {
    (0..text.len() / 2).map(|at| u8::from_str_radix(&text[2 * at..2 * at + 2], 16)).collect()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
