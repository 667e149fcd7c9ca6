//! Requests and responses, complete: what is left when messages, exchanges and blocks are taken away.

use bytes::Bytes;

use super::code::Code;
use super::option::Options;

/// A complete request. Its options are those that a resource reads: no Block1, Block2, Size1, Size2 or Observe.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// The method.
    pub method: Code,
    /// The options, without those of transfer and observation.
    pub options: Options,
    /// Whether it registers or deregisters an observation (RFC 7641 §2).
    pub observe: Option<Observe>,
    /// The whole body.
    pub payload: Bytes,
}

impl Request {
    /// A request without options and body.
    pub fn new(method: Code) -> Self {
        Self { method, options: Options::new(), observe: None, payload: Bytes::new() }
    }
}

/// What a request's Observe option asks for (RFC 7641 §2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Observe {
    /// 0: add the client to the list of observers.
    Register,
    /// 1: remove it.
    Deregister,
}

/// A complete response. Its options are those that a client reads: no Block1, Block2, Size1, Size2 or Observe.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Response {
    /// The response code; 0.00 only from MSC3079 servers that had none for a status.
    pub code: Code,
    /// The options, without those of transfer and observation.
    pub options: Options,
    /// The whole body.
    pub payload: Bytes,
}

impl Response {
    /// A response without options and body.
    pub fn new(code: Code) -> Self {
        Self { code, options: Options::new(), payload: Bytes::new() }
    }
}

/// Content-Formats by their numbers (RFC 7252 §12.3).
pub mod content_format {
    /// `application/octet-stream`.
    pub const OCTET_STREAM: u32 = 42;
    /// `application/json`.
    pub const JSON: u32 = 50;
    /// `application/cbor` (RFC 8949 §9.3).
    pub const CBOR: u32 = 60;
    /// `application/edhoc+cbor-seq` (RFC 9528 §10.9).
    pub const EDHOC: u32 = 64;
    /// `application/cid-edhoc+cbor-seq` (RFC 9528 §10.9): with a connection identifier before it.
    pub const CID_EDHOC: u32 = 65;
    /// `application/missing-blocks+cbor-seq` (RFC 9177 §12.3).
    pub const MISSING_BLOCKS: u32 = 272;
}
