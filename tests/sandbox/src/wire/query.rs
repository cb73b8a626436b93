//! The query protocol: form fields to JSON, JSON to XML.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use crate::world::ApiError;

/// Form fields as a tree: `A.member.1.B=x` is `{"A": [{"B": "x"}]}`, `A.entry.1.key=k` with `A.entry.1.value=v` is
/// `{"A": {"k": "v"}}`. Every leaf is a string; the API model gives it its type afterwards.
pub fn parse(body: &[u8]) -> Value {
    let mut root = Node::default();
    for (key, value) in form_urlencoded::parse(body) {
        let mut node = &mut root;
        for part in key.split('.') {
            node = node.children.entry(part.to_owned()).or_default();
        }
        node.leaf = Some(value.into_owned());
    }
    root.value()
}

#[derive(Default)]
struct Node {
    leaf: Option<String>,
    children: BTreeMap<String, Node>,
}

impl Node {
    fn value(self) -> Value {
        if self.children.is_empty() {
            return Value::String(self.leaf.unwrap_or_default());
        }
        if self.children.len() == 1 {
            let members = self.children.get("member").filter(|n| !n.children.is_empty());
            if let Some(items) = members.and_then(Node::numbered) {
                return Value::Array(items);
            }
            if let Some(map) = self.children.get("entry").and_then(Node::entries) {
                return Value::Object(map);
            }
        }
        Value::Object(self.children.into_iter().map(|(k, n)| (k, n.value())).collect())
    }

    /// The children in the order of their numbers; None if one is not a number.
    fn ordered(&self) -> Option<Vec<&Node>> {
        let mut items: Vec<(u32, &Node)> =
            self.children.iter().map(|(k, n)| k.parse().ok().map(|i| (i, n))).collect::<Option<_>>()?;
        items.sort_by_key(|(i, _)| *i);
        Some(items.into_iter().map(|(_, n)| n).collect())
    }

    fn numbered(&self) -> Option<Vec<Value>> {
        Some(self.ordered()?.into_iter().map(|n| n.clone().value()).collect())
    }

    fn entries(&self) -> Option<Map<String, Value>> {
        self.ordered()?
            .into_iter()
            .map(|n| {
                let key = n.children.get("key")?.leaf.clone()?;
                Some((key, n.children.get("value")?.clone().value()))
            })
            .collect()
    }
}

impl Clone for Node {
    fn clone(&self) -> Self {
        Node { leaf: self.leaf.clone(), children: self.children.clone() }
    }
}

/// The namespace of a service's answers.
pub fn namespace(service: &str) -> &'static str {
    match service {
        "cloudformation" => "http://cloudformation.amazonaws.com/doc/2010-05-15/",
        "iam" => "https://iam.amazonaws.com/doc/2010-05-08/",
        _ => "https://sts.amazonaws.com/doc/2011-06-15/",
    }
}

/// The answer of an operation. A null output has no result element.
pub fn answer(service: &str, operation: &str, output: &Value, request_id: &str) -> String {
    let mut xml = format!("<{operation}Response xmlns=\"{}\">", namespace(service));
    if !output.is_null() {
        element(&mut xml, &format!("{operation}Result"), output);
    }
    xml.push_str(&format!(
        "<ResponseMetadata><RequestId>{request_id}</RequestId></ResponseMetadata></{operation}Response>"
    ));
    xml
}

/// The error answer.
pub fn error(service: &str, error: &ApiError, request_id: &str) -> String {
    let kind = if error.status >= 500 { "Receiver" } else { "Sender" };
    let mut xml = format!("<ErrorResponse xmlns=\"{}\"><Error><Type>{kind}</Type><Code>", namespace(service));
    escape(&mut xml, &error.code);
    xml.push_str("</Code><Message>");
    escape(&mut xml, &error.message);
    xml.push_str(&format!("</Message></Error><RequestId>{request_id}</RequestId></ErrorResponse>"));
    xml
}

fn element(xml: &mut String, name: &str, value: &Value) {
    if value.is_null() {
        return;
    }
    xml.push_str(&format!("<{name}>"));
    match value {
        Value::Object(map) => map.iter().for_each(|(k, v)| element(xml, k, v)),
        Value::Array(items) => items.iter().for_each(|v| element(xml, "member", v)),
        Value::String(text) => escape(xml, text),
        other => xml.push_str(&other.to_string()),
    }
    xml.push_str(&format!("</{name}>"));
}

/// Text as XML content. Characters that XML 1.0 cannot hold are left out; a carriage return would be normalised away.
pub fn escape(xml: &mut String, text: &str) {
    for c in text.chars() {
        match c {
            '&' => xml.push_str("&amp;"),
            '<' => xml.push_str("&lt;"),
            '>' => xml.push_str("&gt;"),
            '"' => xml.push_str("&quot;"),
            '\r' => xml.push_str("&#13;"),
            '\t' | '\n' => xml.push(c),
            c if (c as u32) < 0x20 || c == '\u{fffe}' || c == '\u{ffff}' => {}
            c => xml.push(c),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn lists_maps_and_structures_come_back_from_form_fields() {
        let body =
            b"Action=X&Version=1&P.member.2.K=b&P.member.1.K=a&P.member.10.K=j&E.entry.1.key=k&E.entry.1.value=v&N.A=1";
        assert_eq!(
            parse(body),
            json!({"Action": "X", "Version": "1", "P": [{"K": "a"}, {"K": "b"}, {"K": "j"}], "E": {"k": "v"}, "N": {"A": "1"}})
        );
    }

    #[test]
    fn a_structure_with_a_member_called_member_stays_a_structure() {
        assert_eq!(parse(b"A.member=x"), json!({"A": {"member": "x"}}));
    }

    #[test]
    fn output_is_xml_with_members_and_without_nulls() {
        let xml = answer("sts", "Op", &json!({"L": ["a<b", "c"], "S": {"T": true, "N": null}}), "r");
        assert_eq!(
            xml,
            "<OpResponse xmlns=\"https://sts.amazonaws.com/doc/2011-06-15/\"><OpResult><L><member>a&lt;b</member>\
             <member>c</member></L><S><T>true</T></S></OpResult><ResponseMetadata><RequestId>r</RequestId>\
             </ResponseMetadata></OpResponse>"
        );
    }

    #[test]
    fn control_characters_never_reach_the_answer() {
        let mut xml = String::new();
        escape(&mut xml, "a\u{1b}[0m\r\n\"");
        assert_eq!(xml, "a[0m&#13;\n&quot;");
    }
}
