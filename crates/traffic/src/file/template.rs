//! The value of a variable, with placeholders for the side in charge.

use crate::Endpoint;

/// The placeholders that are understood.
const PLACEHOLDERS: &str = "{host}, {port}, {database}, {user} or {side}";

/// A value with placeholders. Its text is never shown: a plan may have put a password there.
pub(crate) struct Template(Vec<Piece>);

enum Piece {
    Text(String),
    Host,
    Port,
    Database,
    User,
    Side,
}

impl Template {
    /// Parses `text`; `{{` and `}}` stand for braces.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let mut pieces = Vec::new();
        let mut literal = String::new();
        let mut rest = text;
        while let Some(at) = rest.find(['{', '}']) {
            literal.push_str(&rest[..at]);
            let (brace, after) = rest[at..].split_at(1);
            if let Some(after) = after.strip_prefix(brace) {
                literal.push_str(brace);
                rest = after;
                continue;
            }
            if brace == "}" {
                return Err("the value has a `}` without a `{`; write `}}` for a brace".to_owned());
            }
            let (name, after) = after.split_once('}').ok_or("the value has a `{` without a `}`; write `{{` for a brace")?;
            pieces.push(Piece::Text(std::mem::take(&mut literal)));
            pieces.push(Piece::named(name)?);
            rest = after;
        }
        literal.push_str(rest);
        pieces.push(Piece::Text(literal));
        Ok(Self(pieces))
    }

    /// The value for `endpoint`.
    pub(crate) fn render(&self, endpoint: &Endpoint) -> String {
        let url = &endpoint.url;
        let piece = |piece: &Piece| match piece {
            Piece::Text(text) => text.clone(),
            Piece::Host => url.host.clone(),
            Piece::Port => url.port.to_string(),
            Piece::Database => url.database.clone(),
            Piece::User => url.user.clone(),
            Piece::Side => endpoint.side.to_string(),
        };
        self.0.iter().map(piece).collect()
    }
}

impl Piece {
    fn named(name: &str) -> Result<Self, String> {
        Ok(match name {
            "host" => Self::Host,
            "port" => Self::Port,
            "database" => Self::Database,
            "user" => Self::User,
            "side" => Self::Side,
            "password" => {
                return Err("`{password}` is not filled in; write `${NAME}` to take one from the environment".to_owned());
            }
            _ => return Err(format!("`{{{name}}}` is no placeholder, expected {PLACEHOLDERS}")),
        })
    }
}

#[cfg(test)]
mod tests {
    use cutover_core::{Side, plan::DatabaseUrl};

    use super::*;

    fn rendered(text: &str) -> Result<String, String> {
        let url = DatabaseUrl::parse("postgres://app@db2.example:6000/orders").unwrap();
        Ok(Template::parse(text)?.render(&Endpoint { side: Side::Target, url }))
    }

    #[test]
    fn fills_in_the_side_in_charge() {
        assert_eq!(rendered("pg://{user}:x@{host}:{port}/{database}#{side}").unwrap(), "pg://app:x@db2.example:6000/orders#target");
        assert_eq!(rendered("{{\"h\": \"{host}\"}}").unwrap(), "{\"h\": \"db2.example\"}");
        assert_eq!(rendered("{{host}}").unwrap(), "{host}");
        assert_eq!(rendered("").unwrap(), "");
    }

    #[test]
    fn what_is_not_understood_is_an_error() {
        for (text, part) in [("{hots}", "`{hots}`"), ("{host", "without a `}`"), ("host}", "without a `{`"), ("{password}", "environment")]
        {
            let error = rendered(text).unwrap_err();
            assert!(error.contains(part), "{error}");
        }
    }
}
