//! Blockwise transfers as stories in virtual time (RFC 7959; RFC 9175 §3 for Request-Tag).

#![cfg(test)]

#[expect(clippy::allow_attributes, reason = "each test file uses another part of it")]
#[allow(dead_code, reason = "each test file uses another part of it")]
mod support;

use support::figure::Figure;

#[test]
fn figures_of_rfc_7959_as_server() {
    let figures = Figure::all("rfc7959");
    assert_eq!(figures.iter().filter(|figure| figure.has("server")).map(Figure::play_as_server).count(), 9);
}

#[test]
fn figures_of_rfc_7959_as_client() {
    let figures = Figure::all("rfc7959");
    assert_eq!(figures.iter().filter(|figure| figure.has("client")).map(Figure::play_as_client).count(), 7);
}
