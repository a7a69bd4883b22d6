//! The pool by hand and by chance.

mod by_chance;
mod by_hand;
mod world;
