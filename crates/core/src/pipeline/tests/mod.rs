//! Tests of the whole gate: scenarios by hand, a model by chance, and its figures.

mod build;
mod model;
mod scenarios;
mod script;
mod words;
mod world;
