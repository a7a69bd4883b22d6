//! What is told when: `start`, `success`, `failure`, `merge-failure`, `disabled`.

use super::fields::{Findings, Map, truth};
use super::tree::{Kind, Node};
use super::values::vote;
use toci_core::event::{SourceName, normal_label};
use toci_core::layout::{Actions, GerritVote, Reporter};

/// All actions of a pipeline.
pub(super) fn read(map: &Map<'_>, source: &SourceName, found: &mut Findings) -> Actions {
    let mut of = |key: &str| reporters(map, key, source, found);
    Actions {
        start: of("start"),
        success: of("success"),
        failure: of("failure"),
        disabled: of("disabled"),
        merge_failure: map.get("merge-failure").map(|_| of("merge-failure")),
    }
}

fn reporters(map: &Map<'_>, key: &str, source: &SourceName, found: &mut Findings) -> Vec<Reporter> {
    let Some(one) = map.get(key).and_then(|node| Map::of(node, key, found)) else {
        return Vec::new();
    };
    let mut out = Vec::new();
    for (name, mark, node) in one.entries {
        let path = format!("{}.{key}.{name}", map.path);
        match name.as_str() {
            "smtp" => out.extend(smtp(node, &path, found)),
            "webhook" => out.extend(webhook(node, &path, found)),
            "mysql" => {
                found.note(*mark, &path, "results are kept by the server; see `toci run list`")
            }
            _ => match SourceName::new(name.as_str()) {
                Ok(named) => {
                    let to = if found.is_any_source(name) { source.clone() } else { named };
                    found.must_be_source(&to, *mark, &path);
                    out.extend(votes(node, &path, to, found));
                }
                Err(bad) => found.error(*mark, &path, bad.to_string(), "smtp, webhook or a source"),
            },
        }
    }
    out
}

fn votes(node: &Node, path: &str, source: SourceName, found: &mut Findings) -> Option<Reporter> {
    let map = Map::of(node, path, found)?;
    let mut votes = Vec::new();
    let mut merge = false;
    for (key, mark, value) in map.entries {
        match (key.as_str(), truth(value)) {
            ("submit", Some(wanted)) => merge = wanted,
            (_, Some(true)) => votes.push(GerritVote::Flag(key.clone())),
            (_, Some(false)) => {}
            (_, None) if matches!(value.kind, Kind::Scalar { .. }) => {
                if let Some(value) = vote(value, key, found) {
                    votes.push(GerritVote::Label(normal_label(key), value));
                }
            }
            (_, None) => {
                found.error(
                    *mark,
                    path,
                    format!("`{key}` has no vote"),
                    "a number, or true for a flag",
                );
            }
        }
    }
    Some(Reporter::Source { source, votes, merge })
}

fn smtp(node: &Node, path: &str, found: &mut Findings) -> Option<Reporter> {
    let map = Map::of(node, path, found)?;
    map.known(&["from", "to", "subject"], found);
    Some(Reporter::Smtp {
        from: map.text("from", found),
        to: map.text("to", found),
        subject: map.text("subject", found),
    })
}

fn webhook(node: &Node, path: &str, found: &mut Findings) -> Option<Reporter> {
    let map = Map::of(node, path, found)?;
    map.known(&["url"], found);
    let url = map.needed("url", found)?;
    if url.starts_with("http://") || url.starts_with("https://") {
        return Some(Reporter::Webhook { url });
    }
    found.error(map.mark, path, format!("`{url}` is no address"), "http://… or https://…");
    None
}
