//! YAML as a tree in which every node knows where it stands. Bounded in size, depth and what aliases may blow up.

use saphyr_parser::{Event, Parser, ScalarStyle, Span};
use std::collections::HashMap;

/// Longest text, in bytes.
pub const TEXT_MAX_BYTES: usize = 4 << 20;
/// Deepest nesting.
pub const DEPTH_MAX: usize = 64;
/// Nodes at most, those that aliases repeat included.
pub const NODES_MAX: usize = 500_000;

/// A place in a text; both count from 1, the column in characters.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Mark {
    /// Line.
    pub line: usize,
    /// Column.
    pub column: usize,
}

/// One node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Node {
    pub(crate) mark: Mark,
    pub(crate) kind: Kind,
}

/// What a node is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Nothing, `~` or `null`.
    Null,
    /// Text; `plain` when it was not quoted, so that it may be a number or a truth value.
    Scalar {
        text: String,
        plain: bool,
    },
    List(Vec<Node>),
    /// In the order of the file.
    Map(Vec<(String, Mark, Node)>),
}

impl Kind {
    /// What it is, for people.
    pub(crate) fn word(&self) -> &'static str {
        match self {
            Kind::Null => "nothing",
            Kind::Scalar { .. } => "text",
            Kind::List(_) => "a list",
            Kind::Map(_) => "a map",
        }
    }
}

type Fault = (Mark, String);

/// How much is read.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    pub(crate) bytes: usize,
    pub(crate) nodes: usize,
}

/// Those of the operator's own layout.
pub(crate) const LAYOUT: Limits = Limits { bytes: TEXT_MAX_BYTES, nodes: NODES_MAX };

/// Parses the first document.
pub(crate) fn parse(text: &str, limits: Limits) -> Result<Node, Fault> {
    if text.len() > limits.bytes {
        return Err((
            Mark { line: 1, column: 1 },
            format!("it is longer than {} bytes", limits.bytes),
        ));
    }
    let mut builder = Builder {
        events: Parser::new_from_str(text),
        anchors: HashMap::new(),
        nodes: 0,
        nodes_max: limits.nodes,
    };
    loop {
        let (event, span) = builder.next()?;
        match event {
            Event::StreamStart | Event::DocumentStart(_) | Event::Nothing => {}
            Event::StreamEnd | Event::DocumentEnd => {
                return Ok(Node { mark: mark(span), kind: Kind::Null });
            }
            other => return builder.node(other, span, 0),
        }
    }
}

fn mark(span: Span) -> Mark {
    Mark { line: span.start.line().max(1), column: span.start.col() + 1 }
}

struct Builder<'t> {
    events: Parser<'t, saphyr_parser::StrInput<'t>>,
    anchors: HashMap<usize, Node>,
    nodes: usize,
    nodes_max: usize,
}

impl<'t> Builder<'t> {
    fn next(&mut self) -> Result<(Event<'t>, Span), Fault> {
        match self.events.next() {
            Some(Ok(event)) => Ok(event),
            Some(Err(e)) => {
                let at = e.marker();
                let mark = Mark { line: at.line().max(1), column: at.col() + 1 };
                Err((mark, format!("it is no YAML: {}", e.info())))
            }
            None => Err((Mark::default(), "the text ends in the middle".to_owned())),
        }
    }

    fn count(&mut self, more: usize, at: Mark) -> Result<(), Fault> {
        self.nodes += more;
        if self.nodes > self.nodes_max {
            let most = self.nodes_max;
            return Err((
                at,
                format!("there are more than {most} values (aliases count each time)"),
            ));
        }
        Ok(())
    }

    fn node(&mut self, event: Event<'t>, span: Span, depth: usize) -> Result<Node, Fault> {
        let at = mark(span);
        self.count(1, at)?;
        if depth > DEPTH_MAX {
            return Err((at, format!("it is nested deeper than {DEPTH_MAX} levels")));
        }
        let (kind, anchor) = match event {
            Event::Scalar(text, style, anchor, _) => {
                let plain = style == ScalarStyle::Plain;
                let null = plain && matches!(&*text, "" | "~" | "null" | "Null" | "NULL");
                let text = text.into_owned();
                (if null { Kind::Null } else { Kind::Scalar { text, plain } }, anchor)
            }
            Event::SequenceStart(anchor, _) => (self.list(depth)?, anchor),
            Event::MappingStart(anchor, _) => (self.map(depth)?, anchor),
            Event::Alias(anchor) => {
                let Some(node) = self.anchors.get(&anchor).cloned() else {
                    return Err((at, "this alias has no anchor before it".to_owned()));
                };
                self.count(size(&node), at)?;
                // An error within it is told where the alias stands.
                return Ok(Node { mark: at, ..node });
            }
            Event::Nothing
            | Event::StreamStart
            | Event::StreamEnd
            | Event::DocumentStart(_)
            | Event::DocumentEnd
            | Event::SequenceEnd
            | Event::MappingEnd => return Err((at, "a value is missing here".to_owned())),
        };
        let node = Node { mark: at, kind };
        if anchor != 0 {
            self.anchors.insert(anchor, node.clone());
        }
        Ok(node)
    }

    fn list(&mut self, depth: usize) -> Result<Kind, Fault> {
        let mut items = Vec::new();
        loop {
            match self.next()? {
                (Event::SequenceEnd, _) => return Ok(Kind::List(items)),
                (event, span) => items.push(self.node(event, span, depth + 1)?),
            }
        }
    }

    fn map(&mut self, depth: usize) -> Result<Kind, Fault> {
        let mut entries: Vec<(String, Mark, Node)> = Vec::new();
        // The line of each key.
        let mut known: HashMap<String, usize> = HashMap::new();
        let mut merged: Vec<(String, Mark, Node)> = Vec::new();
        loop {
            let (event, span) = self.next()?;
            if event == Event::MappingEnd {
                break;
            }
            let key = self.node(event, span, depth + 1)?;
            let (event, span) = self.next()?;
            let value = self.node(event, span, depth + 1)?;
            match key.kind {
                Kind::Scalar { text, plain: true } if text == "<<" => merge(value, &mut merged)?,
                Kind::Scalar { text, .. } => {
                    if let Some(first) = known.insert(text.clone(), key.mark.line) {
                        let what =
                            format!("`{text}` stands here a second time, after line {first}");
                        return Err((key.mark, what));
                    }
                    entries.push((text, key.mark, value));
                }
                Kind::Null | Kind::List(_) | Kind::Map(_) => {
                    return Err((key.mark, format!("a key must be text, not {}", key.kind.word())));
                }
            }
        }
        for (key, mark, value) in merged {
            // The first one counts.
            if known.insert(key.clone(), mark.line).is_none() {
                entries.push((key, mark, value));
            }
        }
        Ok(Kind::Map(entries))
    }
}

/// What `<<:` brings: a map, or several of which the first counts most.
fn merge(value: Node, into: &mut Vec<(String, Mark, Node)>) -> Result<(), Fault> {
    match value.kind {
        Kind::Map(entries) => {
            into.extend(entries);
            Ok(())
        }
        Kind::List(items) => items.into_iter().try_for_each(|item| merge(item, into)),
        Kind::Null | Kind::Scalar { .. } => Err((value.mark, "`<<` takes a map".to_owned())),
    }
}

fn size(node: &Node) -> usize {
    match &node.kind {
        Kind::Null | Kind::Scalar { .. } => 1,
        Kind::List(items) => 1 + items.iter().map(size).sum::<usize>(),
        Kind::Map(entries) => 1 + entries.iter().map(|(_, _, v)| 1 + size(v)).sum::<usize>(),
    }
}
