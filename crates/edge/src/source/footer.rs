//! Footers of commit messages.

/// What stands after `Depends-On:` in a commit message, in its order, each once.
#[must_use]
pub fn depends_on(message: &str) -> Vec<String> {
    let mut found: Vec<String> = Vec::new();
    for line in message.lines() {
        let Some((key, value)) = line.split_once(':') else { continue };
        let value = value.trim();
        if key.trim().eq_ignore_ascii_case("depends-on")
            && !value.is_empty()
            && !found.iter().any(|f| f == value)
        {
            found.push(value.to_owned());
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn footers_name_what_is_needed() {
        let message = "Add it\n\nDepends-On: I01\ndepends-on : https://x/#/c/5\nDepends-On:\nDepends-On: I01\n";
        assert_eq!(depends_on(message), ["I01", "https://x/#/c/5"]);
    }
}
