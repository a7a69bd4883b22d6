//! ASKS.
