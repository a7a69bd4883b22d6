//! DRIVES.
