//! Reads what a slot would send: PostgreSQL's logical replication messages, protocol version 1.
//!
//! Source: PostgreSQL's documentation, "Logical Replication Message Formats".

use std::collections::HashMap;

use cutover_core::Lsn;

/// One message, as far as it matters here. What has no effect on a row is [`Message::Other`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Message {
    /// A transaction begins.
    Begin {
        /// Where it committed.
        lsn: Lsn,
        /// The lower half of its id.
        xid: u32,
    },
    /// A change of one row.
    Change(Change),
    /// Tables were emptied.
    Truncate(Vec<Relation>),
    /// Anything else.
    Other,
}

/// A change of one row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Change {
    /// The table at the origin.
    pub(crate) relation: Relation,
    /// Insert, update or delete.
    pub(crate) kind: Kind,
    /// What identified the row before, where the message says it.
    pub(crate) old: Option<Vec<Field>>,
    /// The row as it is now; none for a delete.
    pub(crate) new: Option<Vec<Field>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Insert,
    Update,
    Delete,
}

/// A table as the origin described it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Relation {
    pub(crate) schema: String,
    pub(crate) name: String,
    pub(crate) columns: Vec<Column>,
}

/// A column of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Column {
    pub(crate) name: String,
    /// Part of the replica identity.
    pub(crate) key: bool,
}

/// One column's value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Field {
    Null,
    /// A large value that did not change and is not sent.
    Unchanged,
    Text(String),
}

/// Reads messages in order: a change refers to a table that an earlier message described.
#[derive(Debug, Default)]
pub(crate) struct Decoder {
    relations: HashMap<u32, Relation>,
}

impl Decoder {
    /// Reads one message; none if it is not understood.
    pub(crate) fn read(&mut self, message: &[u8]) -> Option<Message> {
        let mut input = Input(message);
        Some(match input.byte()? {
            b'B' => {
                let lsn = Lsn(input.u64()?);
                let _committed_at = input.u64()?;
                Message::Begin { lsn, xid: input.u32()? }
            }
            b'R' => {
                let id = input.u32()?;
                let relation = relation(&mut input)?;
                self.relations.insert(id, relation);
                Message::Other
            }
            kind @ (b'I' | b'U' | b'D') => Message::Change(self.change(kind, &mut input)?),
            b'T' => Message::Truncate(self.truncated(&mut input)?),
            _ => Message::Other,
        })
    }

    fn truncated(&self, input: &mut Input<'_>) -> Option<Vec<Relation>> {
        let count = input.u32()?;
        let _options = input.byte()?;
        (0..count).map(|_| self.relations.get(&input.u32()?).cloned()).collect()
    }

    fn change(&self, kind: u8, input: &mut Input<'_>) -> Option<Change> {
        let relation = self.relations.get(&input.u32()?)?.clone();
        let kind = match kind {
            b'I' => Kind::Insert,
            b'U' => Kind::Update,
            _ => Kind::Delete,
        };
        let mut change = Change { relation, kind, old: None, new: None };
        while let Some(part) = input.byte() {
            let fields = tuple(input)?;
            match part {
                b'K' | b'O' => change.old = Some(fields),
                b'N' => change.new = Some(fields),
                _ => return None,
            }
        }
        Some(change)
    }
}

fn relation(input: &mut Input<'_>) -> Option<Relation> {
    let (schema, name) = (input.text()?, input.text()?);
    let _replica_identity = input.byte()?;
    let count = input.u16()?;
    let columns = (0..count).map(|_| {
        let column = Column { key: input.byte()? & 1 == 1, name: input.text()? };
        let _type = (input.u32()?, input.u32()?);
        Some(column)
    });
    Some(Relation { schema, name, columns: columns.collect::<Option<_>>()? })
}

fn tuple(input: &mut Input<'_>) -> Option<Vec<Field>> {
    let count = input.u16()?;
    let fields = (0..count).map(|_| {
        Some(match input.byte()? {
            b'n' => Field::Null,
            b'u' => Field::Unchanged,
            b't' => {
                let length = input.u32()? as usize;
                Field::Text(String::from_utf8_lossy(input.take(length)?).into_owned())
            }
            _ => return None,
        })
    });
    fields.collect()
}

/// What is left of a message.
struct Input<'a>(&'a [u8]);

impl<'a> Input<'a> {
    fn take(&mut self, length: usize) -> Option<&'a [u8]> {
        let (head, tail) = self.0.split_at_checked(length)?;
        self.0 = tail;
        Some(head)
    }

    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        self.take(N)?.try_into().ok()
    }

    fn byte(&mut self) -> Option<u8> {
        self.array::<1>().map(|[byte]| byte)
    }

    fn u16(&mut self) -> Option<u16> {
        self.array().map(u16::from_be_bytes)
    }

    fn u32(&mut self) -> Option<u32> {
        self.array().map(u32::from_be_bytes)
    }

    fn u64(&mut self) -> Option<u64> {
        self.array().map(u64::from_be_bytes)
    }

    /// Up to a zero byte.
    fn text(&mut self) -> Option<String> {
        let end = self.0.iter().position(|byte| *byte == 0)?;
        let text = String::from_utf8_lossy(self.take(end)?).into_owned();
        self.byte()?;
        Some(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RELATION: &[u8] = b"R\0\0\0\x07public\0t\0d\0\x02\x01id\0\0\0\0\x17\xff\xff\xff\xff\0v\0\0\0\0\x19\xff\xff\xff\xff";

    #[test]
    fn a_change_is_read_with_the_table_that_an_earlier_message_described() {
        let mut decoder = Decoder::default();
        assert_eq!(decoder.read(b"B\0\0\0\0\0\0\0\x2a\0\0\0\0\0\0\0\0\0\0\0\x01"), Some(Message::Begin { lsn: Lsn(42), xid: 1 }));
        assert_eq!(decoder.read(RELATION), Some(Message::Other));
        let Some(Message::Change(change)) = decoder.read(b"U\0\0\0\x07K\0\x02t\0\0\0\x015nN\0\x02t\0\0\0\x016u") else { panic!() };
        assert_eq!(change.kind, Kind::Update);
        assert_eq!((change.relation.schema.as_str(), change.relation.name.as_str()), ("public", "t"));
        assert!(change.relation.columns[0].key && !change.relation.columns[1].key);
        let Some(Message::Truncate(emptied)) = decoder.read(b"T\0\0\0\x01\0\0\0\0\x07") else { panic!() };
        assert_eq!(emptied, std::slice::from_ref(&change.relation));
        assert_eq!(change.old, Some(vec![Field::Text("5".to_owned()), Field::Null]));
        assert_eq!(change.new, Some(vec![Field::Text("6".to_owned()), Field::Unchanged]));
    }

    #[test]
    fn a_message_that_is_cut_off_is_not_understood_and_harms_nothing() {
        for end in 0..RELATION.len() {
            assert_eq!(Decoder::default().read(&RELATION[..end]), None);
        }
        assert_eq!(Decoder::default().read(b"I\0\0\0\x07N\0\x01n"), None, "of a table that nobody described");
    }
}
