//! The pool by hand and by chance.

mod autohold;
mod by_chance;
mod by_hand;
mod clouds;
mod images;
mod world;
