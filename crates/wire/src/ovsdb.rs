//! OVSDB (RFC 7047), the little of it that a TE host needs: operations of a `transact`, its
//! results, and the sets, maps and UUIDs in which columns come back. No sockets.

use serde_json::{Value, json};
use std::collections::BTreeMap;

/// Largest message either way, in bytes. A thousand bridges take about one MiB.
pub const MESSAGE_MAX_BYTES: usize = 16 << 20;

/// What went wrong with a message.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OvsdbError {
    /// Not JSON, or larger than [`MESSAGE_MAX_BYTES`].
    #[error("ovsdb message is malformed: {0}")]
    Malformed(String),
    /// The server refused the request as a whole.
    #[error("ovsdb request refused: {0}")]
    Refused(String),
    /// One operation failed, so the transaction had no effect.
    #[error("ovsdb operation failed: {error}: {details}")]
    Operation {
        /// The RFC's word, e.g. `constraint violation`.
        error: String,
        /// For people.
        details: String,
    },
}

/// A message from the server.
#[derive(Clone, Debug, PartialEq)]
pub enum Message {
    /// The answer to the request `id`: one result an operation, in order.
    Reply {
        /// Of the request.
        id: u64,
        /// The results, or why there are none.
        result: Result<Vec<Value>, OvsdbError>,
    },
    /// The server asks whether we live; answer with [`echo_reply`].
    Echo {
        /// To be sent back.
        id: Value,
        /// To be sent back.
        params: Value,
    },
    /// A notification that nobody asked for.
    Other,
}

/// A `transact` request on database `Open_vSwitch`.
#[must_use]
pub fn transact(id: u64, operations: Vec<Value>) -> Vec<u8> {
    let mut params = vec![json!("Open_vSwitch")];
    params.extend(operations);
    json!({"method": "transact", "params": params, "id": id}).to_string().into_bytes()
}

/// The answer to an `echo`.
#[must_use]
pub fn echo_reply(id: &Value, params: &Value) -> Vec<u8> {
    json!({"id": id, "result": params, "error": null}).to_string().into_bytes()
}

/// Takes the first whole message out of `buffer`; `None` when more bytes are needed.
pub fn take_message(buffer: &mut Vec<u8>) -> Result<Option<Message>, OvsdbError> {
    let mut stream = serde_json::Deserializer::from_slice(buffer).into_iter::<Value>();
    let value = match stream.next() {
        None => return Ok(None),
        Some(Err(e)) if e.is_eof() && buffer.len() < MESSAGE_MAX_BYTES => return Ok(None),
        Some(Err(e)) => return Err(OvsdbError::Malformed(e.to_string())),
        Some(Ok(v)) => v,
    };
    let used = stream.byte_offset();
    buffer.drain(..used);
    message(&value).map(Some)
}

fn message(v: &Value) -> Result<Message, OvsdbError> {
    match v["method"].as_str() {
        Some("echo") => {
            return Ok(Message::Echo { id: v["id"].clone(), params: v["params"].clone() });
        }
        Some(_) => return Ok(Message::Other),
        None => {}
    }
    let Some(id) = v["id"].as_u64() else {
        return Err(OvsdbError::Malformed("reply without a numeric id".into()));
    };
    if !v["error"].is_null() {
        return Ok(Message::Reply { id, result: Err(OvsdbError::Refused(v["error"].to_string())) });
    }
    let Some(results) = v["result"].as_array() else {
        return Err(OvsdbError::Malformed("reply without a result".into()));
    };
    // Errors of operations arrive inside the results; one more result than operations means that
    // the commit itself failed.
    let failed = results.iter().find_map(|r| r["error"].as_str().map(|e| (e, &r["details"])));
    let result = match failed {
        Some((error, details)) => Err(OvsdbError::Operation {
            error: error.to_owned(),
            details: details.as_str().unwrap_or_default().to_owned(),
        }),
        None => Ok(results.clone()),
    };
    Ok(Message::Reply { id, result })
}

/// Rows of `table`; `columns` of each.
#[must_use]
pub fn select(table: &str, columns: &[&str]) -> Value {
    json!({"op": "select", "table": table, "where": [], "columns": columns})
}

/// A new row, which later operations of the transaction may call `uuid_name`.
#[must_use]
pub fn insert(table: &str, uuid_name: &str, row: Value) -> Value {
    json!({"op": "insert", "table": table, "row": row, "uuid-name": uuid_name})
}

/// Adds to (`insert`) or takes from (`delete`) a set column of the rows called `name`, or of
/// every row when `name` is `None`.
#[must_use]
pub fn mutate_set(
    table: &str,
    name: Option<&str>,
    column: &str,
    mutator: &str,
    members: Vec<Value>,
) -> Value {
    let filter = name.map_or_else(|| json!([]), |n| json!([["name", "==", n]]));
    json!({"op": "mutate", "table": table, "where": filter,
           "mutations": [[column, mutator, set(members)]]})
}

/// Asks vswitchd to tell when it has caught up: it copies `next_cfg` to `cur_cfg`.
#[must_use]
pub fn bump_next_cfg() -> Value {
    json!({"op": "mutate", "table": "Open_vSwitch", "where": [],
           "mutations": [["next_cfg", "+=", 1]]})
}

/// A set.
#[must_use]
pub fn set(members: Vec<Value>) -> Value {
    json!(["set", members])
}

/// A map of strings.
#[must_use]
pub fn map(entries: &[(&str, String)]) -> Value {
    let pairs: Vec<Value> = entries.iter().map(|(k, v)| json!([k, v])).collect();
    json!(["map", pairs])
}

/// A reference to a row inserted in the same transaction.
#[must_use]
pub fn named_uuid(name: &str) -> Value {
    json!(["named-uuid", name])
}

/// A reference to a row.
#[must_use]
pub fn uuid(u: &str) -> Value {
    json!(["uuid", u])
}

/// The members of a set column: one member comes without the `set` around it.
#[must_use]
pub fn members(v: &Value) -> Vec<Value> {
    match v.as_array().map(Vec::as_slice) {
        Some([tag, list]) if tag == "set" => list.as_array().cloned().unwrap_or_default(),
        _ => vec![v.clone()],
    }
}

/// The text of a UUID column.
#[must_use]
pub fn uuid_text(v: &Value) -> Option<String> {
    match v.as_array().map(Vec::as_slice) {
        Some([tag, u]) if tag == "uuid" => u.as_str().map(str::to_owned),
        _ => None,
    }
}

/// The entries of a map column whose keys and values are strings.
#[must_use]
pub fn entries(v: &Value) -> BTreeMap<String, String> {
    let pairs = v.as_array().filter(|a| a.first().is_some_and(|t| t == "map")).map(|a| &a[1]);
    let pairs = pairs.and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    pairs
        .iter()
        .filter_map(|p| Some((p[0].as_str()?.to_owned(), p[1].as_str()?.to_owned())))
        .collect()
}

/// An optional string column: absent ones come as an empty set.
#[must_use]
pub fn optional_text(v: &Value) -> Option<String> {
    v.as_str().map(str::to_owned)
}

/// An optional integer column.
#[must_use]
pub fn optional_number(v: &Value) -> Option<i64> {
    v.as_i64()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_come_whole_or_not_at_all() {
        let text = br#"{"id":7,"result":[{"rows":[]}],"error":null}{"method":"echo","id":"x","params":[1]}{"id":"#;
        let mut buffer = text.to_vec();
        assert_eq!(
            take_message(&mut buffer).unwrap(),
            Some(Message::Reply { id: 7, result: Ok(vec![json!({"rows": []})]) })
        );
        assert_eq!(
            take_message(&mut buffer).unwrap(),
            Some(Message::Echo { id: json!("x"), params: json!([1]) })
        );
        assert_eq!(take_message(&mut buffer).unwrap(), None);
        assert_eq!(buffer, br#"{"id":"#);
        assert!(take_message(&mut b"nonsense".to_vec()).is_err());
    }

    #[test]
    fn an_error_inside_the_results_is_an_error() {
        let mut b =
            br#"{"id":1,"error":null,"result":[{},{"error":"constraint violation","details":"d"},null]}"#
                .to_vec();
        let Some(Message::Reply { result, .. }) = take_message(&mut b).unwrap() else { panic!() };
        assert_eq!(
            result.unwrap_err().to_string(),
            "ovsdb operation failed: constraint violation: d"
        );
    }

    #[test]
    fn columns_are_read() {
        assert_eq!(members(&json!(["uuid", "u"])), vec![json!(["uuid", "u"])]);
        assert_eq!(members(&json!(["set", [1, 2]])), vec![json!(1), json!(2)]);
        assert_eq!(uuid_text(&json!(["uuid", "u"])), Some("u".into()));
        assert_eq!(entries(&json!(["map", [["a", "b"]]]))["a"], "b");
        assert_eq!(optional_text(&json!(["set", []])), None);
        assert_eq!(optional_number(&json!(5)), Some(5));
    }
}
