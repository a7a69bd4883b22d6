//! Pages for people: a run, a folder, the lines of a text. Plain HTML without any script, readable without style too.

use super::reader::ViewedLine;
use std::fmt::Write as _;
use toci_core::log::path::encoded;
use toci_core::log::{FirstError, LogPath, first_error::Rank};
use toci_core::pipeline::{RunResult, RunWish, Subject};
use toci_core::run::variables;
use toci_edge::archive::{Entry, Pack};

/// Lines on one page of a text.
pub(crate) const PAGE_LINES: usize = 5000;

const STYLE: &str = "\
:root{color-scheme:light dark;--ink:#1c2430;--dim:#667085;--line:#e3e6eb;--paper:#fff;--soft:#f6f7f9;--link:#1558b0;--good:#157f3b;--bad:#c0271e;--warm:#b25e09}\
@media(prefers-color-scheme:dark){:root{--ink:#e4e8ee;--dim:#94a0b3;--line:#2c3440;--paper:#12161c;--soft:#1a2029;--link:#7fb2ff;--good:#4cc274;--bad:#ff7b72;--warm:#f0a95b}}\
*{box-sizing:border-box}body{margin:0;background:var(--paper);color:var(--ink);font:15px/1.5 system-ui,sans-serif}\
main{max-width:64rem;margin:0 auto;padding:1.5rem 1.25rem 4rem}main.wide{max-width:none}\
a{color:var(--link);text-decoration:none}a:hover{text-decoration:underline}\
nav{color:var(--dim);font-size:.85rem;overflow-wrap:anywhere}h1{font-size:1.35rem;margin:.4rem 0 .9rem;overflow-wrap:anywhere}\
.pill{display:inline-block;font-size:.78rem;font-weight:600;letter-spacing:.03em;padding:.1rem .6rem;border-radius:1rem;border:1px solid;vertical-align:middle;margin-left:.5rem}\
.good{color:var(--good)}.bad{color:var(--bad)}.warm{color:var(--warm)}.dim{color:var(--dim)}\
.first{display:block;border-left:4px solid var(--bad);background:var(--soft);padding:.7rem 1rem;margin:0 0 1.2rem;border-radius:0 6px 6px 0;color:inherit}\
.first:hover{text-decoration:none;filter:brightness(.97)}.first code{display:block;font-size:.9rem;overflow-wrap:anywhere;white-space:pre-wrap}\
.first small{color:var(--dim)}dl{display:grid;grid-template-columns:max-content 1fr;gap:.15rem 1.2rem;margin:0 0 1.4rem}dt{color:var(--dim)}dd{margin:0;overflow-wrap:anywhere}\
table{border-collapse:collapse;width:100%}th{text-align:left;font-weight:500;color:var(--dim);font-size:.8rem}\
td,th{padding:.28rem .6rem .28rem 0;border-bottom:1px solid var(--line);overflow-wrap:anywhere}td.n,th.n{text-align:right;white-space:nowrap;font-variant-numeric:tabular-nums;padding-right:0;padding-left:1rem}\
code,pre,.log{font-family:ui-monospace,SFMono-Regular,Menlo,Consolas,monospace}\
.log{font-size:.8rem;line-height:1.45;border-collapse:separate;border-spacing:0}.log td{border:0;padding:0 .6rem 0 0;vertical-align:top;white-space:pre-wrap}\
.log td.l{text-align:right;user-select:none;width:1%}.log td.l a{color:var(--dim)}.log td.t{color:var(--dim);white-space:nowrap;width:1%}\
.log tr.bad td.x{color:var(--bad)}.log tr.warm td.x{color:var(--warm)}.log tr:target{background:#ffe58f55}.log tr:hover{background:var(--soft)}\
.bar{display:flex;gap:1rem;flex-wrap:wrap;margin:0 0 .8rem;font-size:.85rem}footer{margin-top:2.5rem;color:var(--dim);font-size:.8rem}";

/// What a run's page says about it.
#[derive(Clone, Debug)]
pub(super) struct Facts {
    pub(super) result: RunResult,
    job: String,
    /// Name, text, and where it leads.
    rows: Vec<(&'static str, String, Option<String>)>,
}

impl Facts {
    pub(super) fn of(wish: &RunWish, result: RunResult) -> Facts {
        let context = &wish.context;
        let mut rows = Vec::new();
        if let Some(project) = variables::project(wish) {
            rows.push(("project", project.to_string(), None));
        }
        match &context.subject {
            Subject::Change(key) => {
                let named = format!("{},{}", key.number, key.patchset);
                let change = context.change.as_ref();
                let text = change.map_or(named.clone(), |c| format!("{named} {}", c.title));
                let url = change.map(|c| c.url.clone());
                rows.push((
                    "change",
                    text,
                    url.filter(|u| u.starts_with("https://") || u.starts_with("http://")),
                ));
                if let Some(change) = change {
                    rows.push(("branch", change.branch.to_string(), None));
                }
            }
            Subject::Ref(update) => {
                rows.push(("ref", format!("{} at {}", update.zuul_name(), update.new), None))
            }
            Subject::Branch { branch, .. } => rows.push(("branch", branch.to_string(), None)),
        }
        rows.push(("pipeline", context.pipeline.to_string(), None));
        rows.push(("run", format!("{}, attempt {}", wish.run, wish.attempt), None));
        Facts { result, job: wish.job.name.to_string(), rows }
    }
}

/// The page of a run. Its links are relative, so that it is good wherever it lies.
pub(super) fn run_page(
    facts: &Facts,
    at: &LogPath,
    pack: &Pack,
    first: Option<&FirstError>,
) -> String {
    let mut out = head(&format!("{} {}", facts.job, facts.result.word()), false);
    let word = facts.result.word();
    let _ = write!(
        out,
        "<nav>{}</nav><h1>{}<span class=\"pill {}\">{word}</span></h1>",
        escaped(at.as_str()),
        escaped(&facts.job),
        color(facts.result)
    );
    if let Some(first) = first {
        let _ = write!(
            out,
            "<a class=first href=\"{}\"><small>first error, line {} of the console</small><code>{}</code></a>",
            line_link(first.line),
            first.line,
            escaped(&first.text)
        );
    }
    out.push_str("<dl>");
    for (name, text, url) in &facts.rows {
        let text = escaped(text);
        let text = match url {
            Some(url) => format!("<a href=\"{}\" rel=noreferrer>{text}</a>", escaped(url)),
            None => text,
        };
        let _ = write!(out, "<dt>{name}</dt><dd>{text}</dd>");
    }
    out.push_str("</dl><table><tr><th>file<th class=n>size<th class=n>stored</tr>");
    for file in &pack.files {
        let link = if file.name == "console.txt" {
            "console.html".to_owned()
        } else {
            encoded(&file.name)
        };
        let _ = write!(
            out,
            "<tr><td><a href=\"./{link}\">{}</a><td class=n>{}<td class=\"n dim\">{}</tr>",
            escaped(&file.name),
            size(file.bytes),
            size(file.stored)
        );
    }
    for (name, why) in &pack.left_out {
        let _ = write!(
            out,
            "<tr class=dim><td>{}<td class=n colspan=2>left out: {}</tr>",
            escaped(name),
            escaped(why)
        );
    }
    out.push_str("</table>");
    foot(out)
}

/// Where a line of the console can be seen.
fn line_link(line: usize) -> String {
    match (line.saturating_sub(1)) / PAGE_LINES {
        0 => format!("console.html#L{line}"),
        page => format!("console.html?from={}#L{line}", page * PAGE_LINES + 1),
    }
}

/// What a folder's page shows.
pub(crate) struct Listing<'a> {
    pub(crate) at: &'a LogPath,
    pub(crate) entries: &'a [Entry],
    pub(crate) is_cut: bool,
}

/// The page of a folder.
pub(crate) fn folder_page(listing: &Listing<'_>) -> String {
    let at = listing.at;
    let name = at.as_str().rsplit('/').next().unwrap_or_default();
    let title = if at.is_root() { "logs" } else { name };
    let mut out = head(title, false);
    let _ = write!(out, "<nav>{}</nav><h1>{}</h1>", crumbs(at, 0), escaped(title));
    out.push_str("<table><tr><th>name<th class=n>stored</tr>");
    if !at.is_root() {
        out.push_str("<tr><td><a href=\"../\">..</a><td class=n></tr>");
    }
    for entry in listing.entries {
        let (slash, bytes) =
            if entry.is_file { ("", size(entry.bytes)) } else { ("/", String::new()) };
        let _ = write!(
            out,
            "<tr><td><a href=\"./{}{slash}\">{}{slash}</a><td class=\"n dim\">{bytes}</tr>",
            encoded(&entry.name),
            escaped(&entry.name)
        );
    }
    out.push_str("</table>");
    if listing.entries.is_empty() {
        out.push_str("<p class=dim>Nothing is here yet.</p>");
    }
    if listing.is_cut {
        out.push_str("<p class=dim>There are more; these are the first.</p>");
    }
    foot(out)
}

/// One page of a text, with numbers that can be linked to (`#L12`).
pub(crate) fn lines_page(
    at: &LogPath,
    from: usize,
    lines: &[ViewedLine],
    more: bool,
    errors_only: bool,
) -> String {
    let name = at.as_str().rsplit('/').next().unwrap_or_default();
    let mut out = head(name, true);
    let _ = write!(out, "<nav>{}</nav><h1>{}</h1>", crumbs(at, 1), escaped(name));
    let raw = encoded(name);
    let level = if errors_only { "&amp;level=error" } else { "" };
    let mut bar = format!("<a href=\"./{raw}\">plain text</a>");
    if errors_only {
        bar.push_str("<a href=\"?lines\">all lines</a>");
    } else {
        bar.push_str("<a href=\"?lines&amp;level=error\">errors only</a>");
    }
    if from > 1 {
        let back = from.saturating_sub(PAGE_LINES).max(1);
        let _ = write!(
            bar,
            "<a href=\"?lines{level}\">first lines</a><a href=\"?lines&amp;from={back}{level}\">before</a>"
        );
    }
    if more {
        let next = lines.last().map_or(from, |line| line.number) + 1;
        let _ = write!(bar, "<a href=\"?lines&amp;from={next}{level}\">further lines</a>");
    }
    let _ = write!(out, "<div class=bar>{bar}</div><table class=log>");
    for line in lines {
        let class = match line.rank {
            Some(Rank::Cause | Rank::Error) => " class=bad",
            Some(Rank::Hint | Rank::Consequence) => " class=warm",
            None => "",
        };
        let number = line.number;
        let _ = writeln!(
            out,
            "<tr id=L{number}{class}><td class=l><a href=\"#L{number}\">{number}</a><td class=t>{}<td class=x>{}</tr>",
            escaped(&line.stamp),
            escaped(&line.text)
        );
    }
    let _ = write!(out, "</table><div class=bar>{bar}</div>");
    foot(out)
}

/// The way to a place as links; `below` says how many of its last names are no folders.
fn crumbs(at: &LogPath, below: usize) -> String {
    let names: Vec<&str> = at.as_str().split('/').filter(|name| !name.is_empty()).collect();
    let up = |levels: usize| if levels == 0 { "./".to_owned() } else { "../".repeat(levels) };
    let mut out = format!("<a href=\"{}\">logs</a>", up(names.len() - below.min(names.len())));
    for (place, name) in names.iter().enumerate() {
        let levels = (names.len() - below).saturating_sub(place + 1);
        if place + 1 == names.len() {
            let _ = write!(out, " / {}", escaped(name));
        } else {
            let _ = write!(out, " / <a href=\"{}\">{}</a>", up(levels), escaped(name));
        }
    }
    out
}

fn color(result: RunResult) -> &'static str {
    match result {
        RunResult::Success => "good",
        RunResult::Failure
        | RunResult::TimedOut
        | RunResult::PostFailure
        | RunResult::ConfigError
        | RunResult::RetryLimit => "bad",
        RunResult::NodeFailure | RunResult::TeFailure | RunResult::Lost => "warm",
        RunResult::Aborted | RunResult::Canceled | RunResult::Skipped => "dim",
    }
}

fn head(title: &str, is_wide: bool) -> String {
    let class = if is_wide { " class=wide" } else { "" };
    format!(
        "<!doctype html><html lang=en><meta charset=utf-8><meta name=viewport content=\"width=device-width\">\
         <title>{}</title><style>{STYLE}</style><main{class}>",
        escaped(title)
    )
}

fn foot(mut page: String) -> String {
    page.push_str("<footer>toci</footer></main></html>\n");
    page
}

/// Text that cannot become markup.
pub(crate) fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            // Directions would let a name show as another.
            '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' => out.push('\u{fffd}'),
            _ => out.push(c),
        }
    }
    out
}

/// A size for people.
fn size(bytes: u64) -> String {
    let mut unit = "B";
    let mut value = bytes;
    let mut tenths = 0;
    for next in ["KiB", "MiB", "GiB", "TiB"] {
        if value < 1024 {
            break;
        }
        tenths = (value % 1024) * 10 / 1024;
        value /= 1024;
        unit = next;
    }
    if unit == "B" || value >= 100 {
        format!("{value} {unit}")
    } else {
        format!("{value}.{tenths} {unit}")
    }
}
