//! Transmission parameters and the times derived from them (RFC 7252 §4.8).

use std::time::Duration;

use super::airtime::Airtime;
use super::code::Code;

/// How messages are repeated and how long they are remembered. The default is RFC 7252's, §4.8, in which the length of a
/// message means nothing.
#[derive(Clone, Debug, PartialEq)]
pub struct Parameters {
    /// ACK_TIMEOUT: the shortest wait for an acknowledgement before the first repeat, but for the airtime of the message and
    /// of what answers it.
    pub ack_timeout: Duration,
    /// ACK_RANDOM_FACTOR: the longest such wait, as a multiple of the shortest; at least 1.
    pub ack_random_factor: f64,
    /// MAX_RETRANSMIT: how often a confirmable message is repeated.
    pub max_retransmit: u32,
    /// NSTART: how many of our own confirmable messages may wait for one peer at a time (§4.7).
    pub nstart: usize,
    /// MAX_LATENCY: how long a datagram may be under way (§4.8.2).
    pub max_latency: Duration,
    /// How long a confirmable request waits for its answer before it is acknowledged by an empty message (§5.2.2).
    /// Less than the peer's ACK_TIMEOUT, or the peer repeats itself meanwhile.
    pub piggyback_wait: Duration,
    /// How much longer than an acknowledgement an answer may wait at the peer until it may be sent: where the peer's share of
    /// the air is limited.
    pub answer_wait: Duration,
    /// How long our messages are on the air.
    pub sending: Airtime,
    /// How long the peer's are.
    pub receiving: Airtime,
    /// The greatest message to reckon with, in bytes: a block and its options.
    pub largest: usize,
    /// Whether measured round trips lengthen ACK_TIMEOUT, up to eight times.
    pub refine: bool,
}

impl Default for Parameters {
    fn default() -> Self {
        Self {
            ack_timeout: Duration::from_secs(2),
            ack_random_factor: 1.5,
            max_retransmit: 4,
            nstart: 1,
            max_latency: Duration::from_secs(100),
            piggyback_wait: Duration::from_secs(1),
            answer_wait: Duration::ZERO,
            sending: Airtime::NONE,
            receiving: Airtime::NONE,
            largest: 1152,
            refine: false,
        }
    }
}

/// What answers a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// An empty acknowledgement.
    Acknowledgement,
    /// What a request that changes something comes to: usually short, and at most a block.
    Result,
    /// What a request asks for: a whole block.
    Content,
}

impl Answer {
    /// What may come in the acknowledgement of a message with this code.
    pub fn to(code: Code) -> Self {
        match code {
            Code::GET | Code::FETCH => Self::Content,
            code if code.is_request() => Self::Result,
            _ => Self::Acknowledgement,
        }
    }
}

/// The length of an empty acknowledgement (§3).
pub const ACKNOWLEDGEMENT: usize = 4;

impl Parameters {
    /// The shortest wait for what answers a message of so many bytes, from the moment that its last bit has left: its own airtime,
    /// once more for one that is stored and forwarded on its way, that of the answer, how long that waits for its turn, and ACK_TIMEOUT.
    pub fn timeout(&self, message: usize, answer: Answer) -> Duration {
        let (answer, wait) = match answer {
            Answer::Acknowledgement => (ACKNOWLEDGEMENT, Duration::ZERO),
            Answer::Result => (self.largest, Duration::ZERO),
            Answer::Content => (self.largest, self.answer_wait),
        };
        self.ack_timeout + self.sending.of(message) + self.receiving.of(answer) + wait
    }

    /// The same for the greatest message and the greatest answer, in either role.
    pub fn longest_timeout(&self) -> Duration {
        self.timeout(self.largest, Answer::Content)
    }

    /// MAX_TRANSMIT_SPAN: from the first transmission of a confirmable message to its last (§4.8.2).
    pub fn max_transmit_span(&self) -> Duration {
        self.backoff(self.max_retransmit)
    }

    /// MAX_TRANSMIT_WAIT: from the first transmission to giving up (§4.8.2).
    pub fn max_transmit_wait(&self) -> Duration {
        self.backoff(self.max_retransmit.saturating_add(1))
    }

    /// PROCESSING_DELAY: how long a peer takes to acknowledge (§4.8.2).
    pub fn processing_delay(&self) -> Duration {
        self.ack_timeout
    }

    /// MAX_RTT: the longest round trip (§4.8.2).
    pub fn max_rtt(&self) -> Duration {
        self.max_latency.saturating_mul(2).saturating_add(self.processing_delay())
    }

    /// EXCHANGE_LIFETIME: how long a message ID must not be used again, and a confirmable message is remembered (§4.8.2): not
    /// less than MAX_TRANSMIT_WAIT, so that a peer that has not given up yet is never taken for another.
    pub fn exchange_lifetime(&self) -> Duration {
        self.max_transmit_span().saturating_add(self.max_rtt()).max(self.max_transmit_wait())
    }

    /// NON_LIFETIME: the same for a non-confirmable message (§4.8.2).
    pub fn non_lifetime(&self) -> Duration {
        self.max_transmit_span().saturating_add(self.max_latency)
    }

    /// The longest time for a number of waits, each twice the one before.
    fn backoff(&self, waits: u32) -> Duration {
        let times = 2_u32.saturating_pow(waits).saturating_sub(1);
        self.longest_timeout().saturating_mul(times).mul_f64(self.ack_random_factor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_derived_times_are_those_of_the_table_in_the_rfc() {
        // RFC 7252 §4.8.2, Table 3.
        let parameters = Parameters::default();
        assert_eq!(parameters.max_transmit_span(), Duration::from_secs(45));
        assert_eq!(parameters.max_transmit_wait(), Duration::from_secs(93));
        assert_eq!(parameters.max_rtt(), Duration::from_secs(202));
        assert_eq!(parameters.exchange_lifetime(), Duration::from_secs(247));
        assert_eq!(parameters.non_lifetime(), Duration::from_secs(145));
    }

    #[test]
    fn a_message_is_remembered_for_as_long_as_its_sender_may_wait() {
        let sending = Airtime { bits_per_second: 100, overhead: 28, fragment: 0, sealing: 0 };
        let parameters = Parameters { sending, receiving: sending, ..Parameters::default() };
        assert!(parameters.exchange_lifetime() >= parameters.max_transmit_wait());
        // Four bytes and 28 of headers are on the air for 2.56 s.
        assert_eq!(
            parameters.timeout(72, Answer::Acknowledgement),
            Duration::from_millis(2_000 + 8_000 + 2_560)
        );
    }
}
