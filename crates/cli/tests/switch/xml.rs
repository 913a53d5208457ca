//! Reads XML as strictly as a pipeline's parser does: what is not well-formed panics and says where.

use std::collections::BTreeMap;

/// One element, with the text directly inside it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Element {
    pub(crate) name: String,
    pub(crate) attributes: BTreeMap<String, String>,
    pub(crate) text: String,
    pub(crate) children: Vec<Element>,
}

impl Element {
    /// Every element of this name below this one.
    pub(crate) fn all(&self, name: &str) -> Vec<&Element> {
        self.children
            .iter()
            .flat_map(|child| (child.name == name).then_some(child).into_iter().chain(child.all(name)).collect::<Vec<_>>())
            .collect()
    }

    /// An attribute's number.
    pub(crate) fn number(&self, name: &str) -> f64 {
        self.attributes[name].parse().unwrap()
    }
}

/// The root element.
pub(crate) fn parse(text: &str) -> Element {
    let mut rest = text.strip_prefix("<?xml version=\"1.0\" encoding=\"UTF-8\"?>").expect("no declaration");
    let mut open = vec![Element::default()];
    while let Some((before, after)) = rest.split_once('<') {
        open.last_mut().unwrap().text += &plain(before);
        let (tag, following) = after.split_once('>').unwrap_or_else(|| panic!("no end of a tag: {after:.80}"));
        rest = following;
        if let Some(name) = tag.strip_prefix('/') {
            let closed = open.pop().unwrap();
            assert_eq!(closed.name, name, "closed out of order");
            open.last_mut().unwrap_or_else(|| panic!("nothing is open at </{name}>")).children.push(closed);
        } else if let Some(tag) = tag.strip_suffix('/') {
            let child = element(tag);
            open.last_mut().unwrap().children.push(child);
        } else {
            open.push(element(tag));
        }
    }
    assert_eq!((open.len(), rest.trim()), (1, ""), "something is left open, or follows the end");
    let mut document = open.remove(0);
    assert_eq!((document.children.len(), document.text.trim()), (1, ""), "exactly one root");
    document.children.remove(0)
}

fn element(tag: &str) -> Element {
    let (name, mut rest) = tag.split_once(' ').unwrap_or((tag, ""));
    assert!(!name.is_empty() && name.chars().all(|c| c.is_ascii_lowercase() || c == '-'), "no name of an element: {tag}");
    let mut attributes = BTreeMap::new();
    while !rest.trim().is_empty() {
        let (key, value) = rest.trim_start().split_once("=\"").unwrap_or_else(|| panic!("no attribute: {rest}"));
        let (value, after) = value.split_once('"').unwrap_or_else(|| panic!("an attribute without an end: {value}"));
        assert!(attributes.insert(key.to_owned(), plain(value)).is_none(), "{key} twice");
        rest = after;
    }
    Element { name: name.to_owned(), attributes, ..Element::default() }
}

/// Text with its entities read. A lone `&`, and control characters, are not allowed.
fn plain(text: &str) -> String {
    assert!(text.chars().all(|c| !c.is_control() || c == '\n' || c == '\t'), "a control character: {text:?}");
    let mut parts = text.split('&');
    let mut plain = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let (entity, after) = part.split_once(';').unwrap_or_else(|| panic!("a lone &: {part:.40}"));
        plain.push(match entity {
            "amp" => '&',
            "lt" => '<',
            "gt" => '>',
            "quot" => '"',
            other => panic!("an unknown entity {other}"),
        });
        plain += after;
    }
    plain
}
