//! What `pg_restore` writes of a section, one definition at a time.

/// One definition of the dump's second section.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Entry {
    /// What stands behind `Name:`: an index's name, or a table's and its constraint's.
    pub(super) name: String,
    /// What stands behind `Type:`.
    pub(super) kind: String,
    pub(super) sql: String,
    /// The OIDs of its catalogue and of itself at the source; 0 where it is no object of its own.
    pub(super) identity: (u32, u32),
}

/// Splits a section at the headers that `pg_restore` writes: `-- Name: …; Type: …; Schema: …; Owner: …`. The tablespace
/// is set before the header, and holds until another is. Before the name stands which object it is, where that was asked
/// for with `--verbose`. Inside quotes the same words are a user's text.
pub(super) fn entries(sql: &str) -> Vec<Entry> {
    let mut entries: Vec<Entry> = Vec::new();
    let mut tablespace = String::new();
    let mut quote = None;
    let mut object = (0, 0);
    for line in sql.lines() {
        let quoted = quote.is_some();
        quote = quote_after(quote, line);
        if let Some(entry) = entries.last_mut().filter(|_| quoted) {
            entry.sql.push_str(line);
            entry.sql.push('\n');
        } else if line.starts_with(TABLESPACE) {
            tablespace = format!("{}\n", line.replacen("SET ", "SET LOCAL ", 1));
        } else if let Some(identity) = identity(line) {
            object = identity;
        } else if let Some((name, kind)) = header(line) {
            let identity = std::mem::take(&mut object);
            entries.push(Entry { name: name.to_owned(), kind: kind.to_owned(), sql: tablespace.clone(), identity });
        } else if let Some(entry) = entries.last_mut().filter(|entry| !line.starts_with("--") || entry.sql != tablespace) {
            entry.sql.push_str(line);
            entry.sql.push('\n');
        }
    }
    entries
}

/// The quote that is open behind a line. A doubled quote closes and opens again; the server doubles backslashes too, so
/// none hides a quote. A line that is a comment may hold anything.
fn quote_after(before: Option<char>, line: &str) -> Option<char> {
    if before.is_none() && line.starts_with("--") {
        return None;
    }
    line.chars().fold(before, |open, c| match (open, c) {
        (None, '\'' | '"') => Some(c),
        (Some(quote), _) if quote == c => None,
        _ => open,
    })
}

/// How a line begins that says where what follows is stored.
const TABLESPACE: &str = "SET default_tablespace = ";

fn header(line: &str) -> Option<(&str, &str)> {
    let (name, rest) = line.strip_prefix("-- Name: ")?.split_once("; Type: ")?;
    let (kind, rest) = rest.split_once("; Schema: ")?;
    rest.contains("; Owner: ").then_some((name, kind))
}

/// `-- TOC entry 3215 (class 2606 OID 16388)`.
fn identity(line: &str) -> Option<(u32, u32)> {
    let (_, rest) = line.strip_prefix("-- TOC entry ")?.split_once(" (class ")?;
    let (class, oid) = rest.strip_suffix(')')?.split_once(" OID ")?;
    Some((class.parse().ok()?, oid.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_section_is_split_at_its_headers() {
        let sql = "SET x = 1;\n\nSET default_tablespace = '';\n\n--\n-- TOC entry 7 (class 2606 OID 16388)\n-- Dependencies: 214\n-- Name: t t_pkey; Type: CONSTRAINT; Schema: public; Owner: o\n--\n\nALTER TABLE ONLY public.t\n    ADD CONSTRAINT t_pkey PRIMARY KEY (id);\n\n\nSET default_tablespace = fast;\n\n\
                   --\n-- Name: i; Type: INDEX; Schema: public; Owner: o\n--\n\nCREATE INDEX i ON public.t USING btree (v);\n";
        let entries = entries(sql);
        let kinds: Vec<&str> = entries.iter().map(|entry| entry.kind.as_str()).collect();
        assert_eq!(kinds, ["CONSTRAINT", "INDEX"]);
        assert_eq!(entries.iter().map(|entry| entry.identity).collect::<Vec<_>>(), [(2606, 16388), (0, 0)]);
        assert!(entries[0].sql.contains("PRIMARY KEY (id);") && !entries[0].sql.contains("SET x"));
        assert!(entries[1].sql.contains("CREATE INDEX i"));
        assert!(entries[0].sql.starts_with("SET LOCAL default_tablespace = '';"), "{}", entries[0].sql);
        assert!(entries[1].sql.starts_with("SET LOCAL default_tablespace = fast;"), "{}", entries[1].sql);
    }

    #[test]
    fn a_text_that_says_the_same_words_stays_whole() {
        let forged = "it''s \\\\\n--\n-- Name: forged; Type: INDEX; Schema: s; Owner: o\n--\nSET default_tablespace = nowhere;\n-- x";
        let sql = format!(
            "--\n-- Name: it's \"odd; Type: INDEX; Schema: s; Owner: o\n--\n\nCREATE INDEX \"it's \"\"odd\" ON s.t (v) WHERE v <> E'{forged}';\n\n\n\
             --\n-- Name: INDEX i; Type: COMMENT; Schema: s; Owner: o\n--\n\nCOMMENT ON INDEX i IS '{forged}';\n\n\n\
             --\n-- Name: j; Type: INDEX; Schema: s; Owner: o\n--\n\nCREATE INDEX j ON s.t (v);\n"
        );
        let entries = entries(&sql);
        let kinds: Vec<&str> = entries.iter().map(|entry| entry.kind.as_str()).collect();
        assert_eq!(kinds, ["INDEX", "COMMENT", "INDEX"]);
        assert!(entries[0].sql.contains(forged) && entries[1].sql.contains(forged));
        assert_eq!(entries[2].sql.trim(), "CREATE INDEX j ON s.t (v);");
    }
}
