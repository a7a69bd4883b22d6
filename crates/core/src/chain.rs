//! Errors for people: what failed, and why, in one line.

use core::error::Error;
use core::fmt;

/// An error with its causes, without saying the same twice.
#[derive(Clone, Copy, Debug)]
pub struct Chain<'a>(
    /// The outermost.
    pub &'a dyn Error,
);

impl fmt::Display for Chain<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = self.0.to_string();
        let mut next = self.0.source();
        while let Some(cause) = next {
            let cause_text = cause.to_string();
            if !text.contains(&cause_text) {
                text.push_str(": ");
                text.push_str(&cause_text);
            }
            next = cause.source();
        }
        f.write_str(&text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug)]
    struct Layer(&'static str, Option<Box<Layer>>);

    impl fmt::Display for Layer {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str(self.0)
        }
    }

    impl Error for Layer {
        fn source(&self) -> Option<&(dyn Error + 'static)> {
            self.1.as_deref().map(|layer| layer as &(dyn Error + 'static))
        }
    }

    #[test]
    fn causes_are_joined_and_nothing_is_said_twice() {
        let fire = Layer("disk on fire", None);
        let read = Layer("read the data: disk on fire", Some(Box::new(fire)));
        let send = Layer("send", Some(Box::new(read)));
        assert_eq!(Chain(&send).to_string(), "send: read the data: disk on fire");
        assert_eq!(Chain(&Layer("alone", None)).to_string(), "alone");
    }
}
