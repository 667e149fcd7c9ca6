//! CoAP
