//! TE-HOST.
