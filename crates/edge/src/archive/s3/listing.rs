//! What an S3-compatible store answers in XML.

use quick_xml::Reader;
use quick_xml::events::{BytesRef, Event};

/// Key or common beginning, size, whether it is a key.
pub(super) type Listed = (String, u64, bool);

/// One page of a listing, and the token of the next.
pub(super) fn listed(text: &str) -> Result<(Vec<Listed>, Option<String>), String> {
    let (mut entries, mut token, mut is_cut) = (Vec::new(), None, false);
    let (mut key, mut size) = (String::new(), 0);
    walk(text, |inside, name, held| match (inside, name) {
        ("Contents", "Key") => key = held,
        ("Contents", "Size") => size = held.trim().parse().unwrap_or(0),
        (_, "Contents") => entries.push((std::mem::take(&mut key), size, true)),
        ("CommonPrefixes", "Prefix") => entries.push((held, 0, false)),
        (_, "IsTruncated") => is_cut = held.trim() == "true",
        (_, "NextContinuationToken") => token = Some(held),
        _ => {}
    })?;
    Ok((entries, token.filter(|_| is_cut)))
}

/// The text of the first element of this name.
pub(super) fn first(text: &str, wanted: &str) -> Result<Option<String>, String> {
    let mut found = None;
    walk(text, |_, name, held| {
        if name == wanted && found.is_none() {
            found = Some(held);
        }
    })?;
    Ok(found)
}

/// Every element at its end: the name of the one around it, its own, and the text since the last mark.
fn walk(text: &str, mut on: impl FnMut(&str, &str, String)) -> Result<(), String> {
    let mut reader = Reader::from_str(text);
    let (mut names, mut held): (Vec<String>, String) = (Vec::new(), String::new());
    loop {
        match reader.read_event().map_err(|e| e.to_string())? {
            Event::Start(start) => {
                names.push(start.local_name().as_ref().to_owned());
                held.clear();
            }
            Event::Text(text) => held.push_str(&text),
            Event::GeneralRef(entity) => held.push_str(&resolved(&entity)?),
            Event::End(_) => {
                let name = names.pop().unwrap_or_default();
                let inside = names.last().map(String::as_str).unwrap_or_default();
                on(inside, &name, std::mem::take(&mut held));
            }
            Event::Eof => return Ok(()),
            _ => {}
        }
    }
}

fn resolved(entity: &BytesRef<'_>) -> Result<String, String> {
    if let Some(c) = entity.resolve_char_ref().map_err(|e| e.to_string())? {
        return Ok(c.to_string());
    }
    let name: &str = entity;
    let text = quick_xml::escape::resolve_predefined_entity(name);
    text.map(str::to_owned).ok_or_else(|| format!("the entity &{name}; is unknown"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn listings_are_read() {
        let text = "<?xml version=\"1.0\"?><ListBucketResult xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\">\
            <Name>b</Name><Prefix>p/</Prefix><IsTruncated>true</IsTruncated><NextContinuationToken>t=</NextContinuationToken>\
            <Contents><Key>p/a &amp; b&#39;s.txt.gz</Key><Size>12</Size></Contents>\
            <CommonPrefixes><Prefix>p/d/</Prefix></CommonPrefixes></ListBucketResult>";
        let (entries, token) = listed(text).unwrap();
        assert_eq!(entries, [("p/a & b's.txt.gz".into(), 12, true), ("p/d/".into(), 0, false)]);
        assert_eq!(token.as_deref(), Some("t="));
        assert_eq!(listed("<ListBucketResult/>").unwrap(), (vec![], None));
        assert!(listed("<a></b>").is_err());
    }

    #[test]
    fn one_element_is_found() {
        let text = "<R><Bucket>b</Bucket><UploadId>a&amp;b</UploadId></R>";
        assert_eq!(first(text, "UploadId").unwrap().as_deref(), Some("a&b"));
        assert_eq!(first(text, "Error").unwrap(), None);
    }
}
