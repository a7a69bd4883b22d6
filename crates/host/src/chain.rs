//! Errors for people.

/// An error with its sources, in one line.
#[derive(Debug)]
pub struct Chain<'a>(
    /// The outermost.
    pub &'a dyn std::error::Error,
);

impl std::fmt::Display for Chain<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.0)?;
        let mut source = self.0.source();
        while let Some(e) = source {
            write!(f, ": {e}")?;
            source = e.source();
        }
        Ok(())
    }
}
