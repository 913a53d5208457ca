//! A statement's text: which names it says, which rows it writes, and how it is shown.
//!
//! Only the words are looked at, as PostgreSQL folds them, never what stands in strings and comments. A word can mean
//! another thing than the one that is looked for; what the server itself says about the statement goes before it.

use sqlparser::{
    dialect::PostgreSqlDialect,
    tokenizer::{Token, Tokenizer},
};

use super::object::Object;

/// Characters of a statement that are shown.
const SHOWN: usize = 160;

/// The words of a statement.
#[derive(Debug)]
pub(super) struct Text {
    words: Vec<Word>,
    shown: String,
}

#[derive(Debug, PartialEq)]
enum Word {
    /// An identifier or keyword, folded.
    Name(String),
    Period,
    /// `*` where it stands for all columns.
    Star,
    Comma,
    Other,
}

impl Text {
    pub(super) fn read(sql: &str) -> Self {
        match Tokenizer::new(&PostgreSqlDialect {}, sql).tokenize() {
            Ok(tokens) => Self { words: words(&tokens), shown: shown(&tokens) },
            // Then its strings count as words too, and are not shown.
            Err(_) => Self { words: split(sql), shown: shorten(sql.split('\'').next().unwrap_or_default()) },
        }
    }

    /// The statement on one line, shortened, without what its strings hold: a utility statement may hold a password.
    pub(super) fn shown(&self) -> &str {
        &self.shown
    }

    /// Whether the server looks at its names when it prepares it. Of other statements it only knows the grammar.
    pub(super) fn is_query(&self) -> bool {
        const QUERIES: [&str; 8] = ["select", "insert", "update", "delete", "merge", "with", "values", "table"];
        let first = self.words.iter().find(|word| **word != Word::Other);
        matches!(first, Some(Word::Name(name)) if QUERIES.contains(&name.as_str()))
    }

    /// Whether it says this name, and for a column its relation's as well.
    pub(super) fn names(&self, object: &Object) -> bool {
        let named = self.places(&object.schema, &object.name).next().is_some();
        named && object.column.as_ref().is_none_or(|column| self.says(column))
    }

    /// Whether it takes all columns of a relation, whatever they are.
    pub(super) fn takes_all_of(&self, relation: &Object) -> bool {
        self.names(&relation.whole()) && (self.words.contains(&Word::Star) || self.copies_whole(relation))
    }

    /// Whether it adds rows to a relation.
    pub(super) fn adds_to(&self, relation: &Object) -> bool {
        self.places(&relation.schema, &relation.name).any(|at| {
            let before = self.lead(at).1;
            before == Some("into") || before == Some("copy") && self.says("from")
        })
    }

    /// Whether it adds rows to a relation without saying which columns it gives.
    pub(super) fn adds_by_position_to(&self, relation: &Object) -> bool {
        self.adds_to(relation)
            && self.places(&relation.schema, &relation.name).any(|at| {
                let next = self.words.get(self.end(at));
                matches!(next, Some(Word::Name(word)) if ["values", "select", "table", "with", "from"].contains(&word.as_str()))
            })
    }

    /// Whether it adds or changes rows of a relation.
    pub(super) fn writes_to(&self, relation: &Object) -> bool {
        let changes = |at| self.lead(at).1 == Some("update");
        self.adds_to(relation) || self.places(&relation.schema, &relation.name).any(changes)
    }

    /// Whether it removes rows of a relation.
    pub(super) fn removes_from(&self, relation: &Object) -> bool {
        let previous = |at: usize| (at > 0).then(|| &self.words[at - 1]);
        self.places(&relation.schema, &relation.name).any(|at| {
            let (at, before) = self.lead(at);
            before == Some("truncate")
                || before == Some("table") && self.says("truncate")
                || before == Some("from") && matches!(previous(at), Some(Word::Name(word)) if word == "delete")
        }) || self.says("merge") && self.says("delete") && self.adds_to(relation)
    }

    /// Whether it says a word.
    pub(super) fn says(&self, name: &str) -> bool {
        self.words.iter().any(|word| matches!(word, Word::Name(said) if said == name))
    }

    /// Where a name stands, alone or with its schema.
    fn places(&self, schema: &str, name: &str) -> impl Iterator<Item = usize> {
        self.words.iter().enumerate().filter(move |(_, word)| matches!(word, Word::Name(said) if said == name)).filter_map(
            move |(at, _)| match at.checked_sub(2).map(|first| &self.words[first..at]) {
                Some([Word::Name(qualifier), Word::Period]) => (qualifier == schema).then_some(at - 2),
                _ => Some(at),
            },
        )
    }

    /// The word before a relation's name and its place, ONLY left out.
    fn lead(&self, at: usize) -> (usize, Option<&str>) {
        let mut at = at;
        while at > 0 {
            at -= 1;
            match &self.words[at] {
                Word::Name(word) if word == "only" => {}
                Word::Name(word) => return (at, Some(word)),
                _ => break,
            }
        }
        (at, None)
    }

    /// `COPY t FROM` or `TO` without a list of columns.
    fn copies_whole(&self, relation: &Object) -> bool {
        let follows = |at: usize| matches!(self.words.get(at), Some(Word::Name(word)) if word == "from" || word == "to");
        self.places(&relation.schema, &relation.name).any(|at| self.lead(at).1 == Some("copy") && follows(self.end(at)))
    }

    /// Behind a name that may have its schema before it.
    fn end(&self, at: usize) -> usize {
        if self.words.get(at + 1) == Some(&Word::Period) { at + 3 } else { at + 1 }
    }
}

fn words(tokens: &[Token]) -> Vec<Word> {
    let mut words = Vec::new();
    for token in tokens {
        let word = match token {
            Token::Whitespace(_) | Token::EOF => continue,
            Token::Word(word) if word.quote_style.is_some() => Word::Name(word.value.clone()),
            Token::Word(word) => Word::Name(word.value.to_lowercase()),
            Token::Period => Word::Period,
            Token::Mul if stands_for_columns(words.last()) => Word::Star,
            Token::Comma => Word::Comma,
            _ => Word::Other,
        };
        words.push(word);
    }
    words
}

/// Whether a `*` behind this word stands for columns and is no multiplication.
fn stands_for_columns(last: Option<&Word>) -> bool {
    match last {
        Some(Word::Name(word)) => ["select", "distinct", "all", "returning"].contains(&word.as_str()),
        Some(Word::Period | Word::Comma) => true,
        _ => false,
    }
}

fn shown(tokens: &[Token]) -> String {
    let text = |token: &Token| match token {
        Token::SingleQuotedString(_)
        | Token::EscapedStringLiteral(_)
        | Token::NationalStringLiteral(_)
        | Token::UnicodeStringLiteral(_)
        | Token::SingleQuotedByteStringLiteral(_)
        | Token::DollarQuotedString(_)
        | Token::HexStringLiteral(_) => "'…'".to_owned(),
        Token::Whitespace(_) => " ".to_owned(),
        token => token.to_string(),
    };
    shorten(&tokens.iter().map(text).collect::<String>())
}

fn shorten(text: &str) -> String {
    let line = text.split_whitespace().collect::<Vec<_>>().join(" ");
    if line.chars().count() <= SHOWN { line } else { format!("{}…", line.chars().take(SHOWN).collect::<String>()) }
}

fn split(sql: &str) -> Vec<Word> {
    let words = sql.split(|c: char| !(c.is_alphanumeric() || c == '_' || c == '$')).filter(|word| !word.is_empty());
    words.map(|word| Word::Name(word.to_lowercase())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn column() -> Object {
        Object::column("public", "orders", "Code")
    }

    #[test]
    fn only_words_that_are_names_count() {
        for sql in [
            "SELECT \"Code\" FROM orders",
            "select o.\"Code\" from PUBLIC.Orders o",
            "SELECT 1 /* /* nested */ */ FROM \"public\".\"orders\" WHERE \"Code\" = $1 -- end",
            "COPY orders (id, \"Code\") TO STDOUT",
        ] {
            assert!(Text::read(sql).names(&column()), "{sql}");
        }
        for sql in [
            "SELECT code FROM orders",
            "SELECT 'orders \"Code\"' FROM t",
            "SELECT $t$ \"Code\" $t$, E'\\' \"Code\"' FROM orders",
            "SELECT 1 FROM orders -- \"Code\"",
            "SELECT \"Code\" FROM other.orders",
            "SELECT \"Code\" FROM \"Orders\"",
        ] {
            assert!(!Text::read(sql).names(&column()), "{sql}");
        }
    }

    #[test]
    fn a_star_is_told_from_a_product() {
        for sql in [
            "SELECT * FROM orders",
            "SELECT a, * FROM orders",
            "SELECT o.* FROM orders o",
            "DELETE FROM orders RETURNING *",
            "COPY public.orders TO STDOUT",
        ] {
            assert!(Text::read(sql).takes_all_of(&column()), "{sql}");
        }
        for sql in [
            "SELECT a * b FROM orders",
            "SELECT count(*) FROM orders",
            "SELECT $1 * 2 FROM orders",
            "COPY orders (id) TO STDOUT",
            "SELECT * FROM t",
        ] {
            assert!(!Text::read(sql).takes_all_of(&column()), "{sql}");
        }
    }

    #[test]
    fn it_is_known_what_a_statement_writes() {
        let seen = |sql: &str| {
            let (text, table) = (Text::read(sql), column().whole());
            (text.adds_to(&table), text.writes_to(&table), text.removes_from(&table))
        };
        assert_eq!(seen("INSERT INTO public.orders VALUES ($1)"), (true, true, false));
        assert_eq!(seen("WITH n AS (SELECT 1) INSERT INTO orders SELECT * FROM n"), (true, true, false));
        assert_eq!(seen("COPY orders FROM STDIN"), (true, true, false));
        assert_eq!(seen("COPY orders TO STDOUT"), (false, false, false));
        assert_eq!(seen("UPDATE ONLY orders SET a = 1"), (false, true, false));
        assert_eq!(seen("DELETE FROM ONLY public.orders"), (false, false, true));
        assert_eq!(seen("TRUNCATE TABLE orders"), (false, false, true));
        assert_eq!(seen("SELECT 1 FROM orders FOR UPDATE OF orders"), (false, false, false));
        assert_eq!(seen("INSERT INTO other.orders SELECT * FROM orders"), (false, false, false));
        assert_eq!(seen("MERGE INTO orders USING t ON a = b WHEN MATCHED THEN DELETE"), (true, true, true));
    }

    #[test]
    fn what_the_server_looks_into_is_told_from_utility_statements() {
        for sql in ["SELECT 1", "(SELECT 1) UNION SELECT 2", "/* app */ WITH a AS (SELECT 1) SELECT 1", "TABLE t", "VALUES (1)"] {
            assert!(Text::read(sql).is_query(), "{sql}");
        }
        for sql in ["BEGIN", "COPY t TO STDOUT", "SET x = 1", "", "CALL p()"] {
            assert!(!Text::read(sql).is_query(), "{sql}");
        }
    }

    #[test]
    fn no_string_of_a_statement_is_shown() {
        for sql in [
            "ALTER ROLE app PASSWORD 'hunter2'",
            "ALTER ROLE app\n PASSWORD E'hunter2'",
            "DO $$ hunter2 $$",
            "ALTER ROLE app PASSWORD 'hunter2",
        ] {
            assert!(!Text::read(sql).shown().contains("hunter2"), "{sql}");
        }
        assert_eq!(Text::read("SELECT  a\n FROM t").shown(), "SELECT a FROM t");
        assert!(Text::read(&"SELECT ".repeat(100)).shown().ends_with('…'));
    }
}
