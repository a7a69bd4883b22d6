//! What `Depends-On:` may name: a Change-Id, or the address of a change of this Gerrit.

/// What a footer asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Asked {
    /// Every change with this id, on whatever branch and project.
    Id(String),
    /// One change.
    Number(u64),
}

/// `None`: it is about no change of the Gerrit with these addresses (scheme and slashes at the end do not matter).
pub(super) fn asked(footer: &str, addresses: &[String]) -> Option<Asked> {
    let footer = footer.trim();
    if is_change_id(footer) {
        return Some(Asked::Id(footer.to_owned()));
    }
    let rest = after_scheme(footer)?;
    let rest = addresses.iter().find_map(|address| {
        let address = after_scheme(address).unwrap_or(address).trim_end_matches('/');
        rest.get(..address.len())?.eq_ignore_ascii_case(address).then_some(())?;
        rest.get(address.len()..)?.strip_prefix('/')
    })?;
    let rest = rest.trim_start_matches("#/").trim_start_matches("r/");
    let rest = rest.split(['?', '#']).next()?.trim_end_matches('/');
    number_in(rest).map(Asked::Number).or_else(|| {
        let id = rest.rsplit('/').next()?;
        let id = id.rsplit(['~', ',']).next()?;
        is_change_id(id).then(|| Asked::Id(id.to_owned()))
    })
}

/// `c/<project>/+/<n>[/<patchset>]`, `c/<n>[/<patchset>]`, `<n>`.
fn number_in(path: &str) -> Option<u64> {
    let after = match path.split_once("/+/") {
        Some((_, after)) => after,
        None => path.strip_prefix("c/").unwrap_or(path),
    };
    after.split('/').next()?.parse().ok()
}

fn after_scheme(url: &str) -> Option<&str> {
    ["https://", "http://", "ssh://"].iter().find_map(|s| url.strip_prefix(s))
}

/// `I` and 40 hex digits, as Gerrit's hook makes them; shorter ones are names of people's own making, but allowed.
fn is_change_id(text: &str) -> bool {
    text.strip_prefix('I').is_some_and(|hex| {
        (4..=40).contains(&hex.len()) && hex.bytes().all(|b| b.is_ascii_hexdigit())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn footers_name_changes_of_this_gerrit_only() {
        let here = ["https://review.example.org/r/".to_owned(), "other.example.org".to_owned()];
        let id = "Ia2881336376a495b086aed7353f9fff03ee41bf8";
        let number = |n| Some(Asked::Number(n));
        for (footer, expected) in [
            (id, Some(Asked::Id(id.to_owned()))),
            ("https://review.example.org/r/c/openstack/tripleo-ci/+/12", number(12)),
            ("http://REVIEW.example.org/r/c/openstack/tripleo-ci/+/12/3", number(12)),
            ("https://review.example.org/r/#/c/12/3/", number(12)),
            ("https://review.example.org/r/12", number(12)),
            ("http://other.example.org/c/a/+/7?tab=x", number(7)),
            (
                "https://other.example.org/q/Ia2881336376a495b086aed7353f9fff03ee41bf8",
                Some(Asked::Id(id.to_owned())),
            ),
            ("https://review.example.org.evil/r/c/a/+/12", None),
            ("https://github.com/a/b/pull/3", None),
            ("https://review.example.org/r/c/a/+/x", None),
            ("12", None),
            ("Idea", None),
        ] {
            assert_eq!(asked(footer, &here), expected, "{footer}");
        }
    }
}
