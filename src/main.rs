//! The `lowband` binary.

fn main() {}
