//! Scenarios by hand. Their names follow those of Zuul's public test suite where one tests the same behaviour.

use super::script::check;

#[test]
fn independent() {
    check(include_str!("scenarios/independent.txt"));
}

#[test]
fn dependent() {
    check(include_str!("scenarios/dependent.txt"));
}

#[test]
fn needs() {
    check(include_str!("scenarios/needs.txt"));
}

#[test]
fn jobs() {
    check(include_str!("scenarios/jobs.txt"));
}

#[test]
fn reports() {
    check(include_str!("scenarios/reports.txt"));
}

#[test]
fn orders_and_layouts() {
    check(include_str!("scenarios/orders.txt"));
}
