//! A TOML document with the line of every key and value, in the order of the file.

use super::error::Fault;
use std::sync::Arc;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

/// A value and where it stands.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Node {
    /// Its line, from 1.
    pub(crate) line: u32,
    /// The value.
    pub(crate) item: Item,
}

/// What TOML has.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Item {
    Text(Arc<str>),
    Whole(i64),
    Real(f64),
    Flag(bool),
    Date(Arc<str>),
    List(Vec<Node>),
    Table(Table),
}

/// Keys and their values.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Table {
    pub(crate) entries: Vec<Entry>,
}

/// A key and its value.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Entry {
    pub(crate) key: Arc<str>,
    /// The line of the key, from 1.
    pub(crate) line: u32,
    pub(crate) node: Node,
}

impl Table {
    pub(crate) fn get(&self, key: &str) -> Option<&Entry> {
        self.entries.iter().find(|e| &*e.key == key)
    }

    /// The value of `key`, which is made with `missing` if there is none.
    pub(crate) fn get_or_insert(&mut self, key: &str, missing: Node) -> &mut Node {
        let at = self.entries.iter().position(|e| &*e.key == key).unwrap_or_else(|| {
            self.entries.push(Entry { key: key.into(), line: missing.line, node: missing });
            self.entries.len() - 1
        });
        &mut self.entries[at].node
    }

    pub(crate) fn remove(&mut self, key: &str) -> Option<Entry> {
        let at = self.entries.iter().position(|e| &*e.key == key)?;
        Some(self.entries.remove(at))
    }
}

impl Node {
    /// Parses a document.
    ///
    /// # Errors
    /// The first place that is not TOML.
    pub(crate) fn parse(text: &str) -> Result<Node, Fault> {
        let lines = Lines::of(text);
        match DeTable::parse(text) {
            Ok(table) => lines.table(table.into_inner(), 1),
            Err(error) => {
                let line = error.span().map_or(1, |span| lines.line(span.start));
                Err(Fault::at(line, "", format!("not valid TOML: {}", error.message())))
            }
        }
    }

    pub(crate) fn text(line: u32, text: &str) -> Node {
        Node { line, item: Item::Text(text.into()) }
    }

    pub(crate) fn as_text(&self) -> Option<&str> {
        match &self.item {
            Item::Text(text) => Some(text),
            _ => None,
        }
    }

    #[cfg(test)]
    pub(crate) fn as_table(&self) -> Option<&Table> {
        match &self.item {
            Item::Table(table) => Some(table),
            _ => None,
        }
    }

    /// What kind of value this is, in the user's words.
    pub(crate) fn kind(&self) -> &'static str {
        match &self.item {
            Item::Text(_) => "text",
            Item::Whole(_) | Item::Real(_) => "a number",
            Item::Flag(_) => "true or false",
            Item::Date(_) => "a date",
            Item::List(_) => "a list",
            Item::Table(_) => "a table",
        }
    }

    /// The value as JSON.
    pub(crate) fn to_json(&self) -> serde_json::Value {
        match &self.item {
            Item::Text(text) | Item::Date(text) => serde_json::Value::from(&**text),
            Item::Whole(n) => (*n).into(),
            Item::Real(x) => (*x).into(),
            Item::Flag(b) => (*b).into(),
            Item::List(nodes) => nodes.iter().map(Node::to_json).collect(),
            Item::Table(table) => {
                table.entries.iter().map(|e| (e.key.to_string(), e.node.to_json())).collect::<serde_json::Map<_, _>>().into()
            }
        }
    }

    /// The value as a label in tables: text without quotes, the rest as TOML writes it.
    pub(crate) fn label(&self) -> String {
        match &self.item {
            Item::Text(text) => text.to_string(),
            _ => self.inline(),
        }
    }

    fn inline(&self) -> String {
        match &self.item {
            Item::Text(text) => format!("{:?}", &**text),
            Item::Date(text) => text.to_string(),
            Item::Whole(n) => n.to_string(),
            Item::Real(x) => format!("{x:?}"),
            Item::Flag(b) => b.to_string(),
            Item::List(nodes) => format!("[{}]", nodes.iter().map(Node::inline).collect::<Vec<_>>().join(", ")),
            Item::Table(t) => {
                let entries: Vec<_> = t.entries.iter().map(|e| format!("{} = {}", e.key, e.node.inline())).collect();
                format!("{{ {} }}", entries.join(", "))
            }
        }
    }
}

/// Where lines begin.
struct Lines {
    starts: Vec<usize>,
}

impl Lines {
    fn of(text: &str) -> Lines {
        let ends = text.bytes().enumerate().filter(|(_, b)| *b == b'\n');
        Lines { starts: std::iter::once(0).chain(ends.map(|(at, _)| at + 1)).collect() }
    }

    fn line(&self, offset: usize) -> u32 {
        u32::try_from(self.starts.partition_point(|&start| start <= offset)).unwrap_or(u32::MAX)
    }

    fn table(&self, table: DeTable<'_>, line: u32) -> Result<Node, Fault> {
        let mut entries = Vec::with_capacity(table.len());
        for (key, value) in table {
            let start = key.span().start;
            entries.push((start, Entry { line: self.line(start), node: self.node(value)?, key: key.into_inner().into() }));
        }
        // Tables come sorted by key; the file's order is that of the offsets.
        entries.sort_by_key(|(start, _)| *start);
        Ok(Node { line, item: Item::Table(Table { entries: entries.into_iter().map(|(_, e)| e).collect() }) })
    }

    fn node(&self, value: Spanned<DeValue<'_>>) -> Result<Node, Fault> {
        let line = self.line(value.span().start);
        let item = match value.into_inner() {
            DeValue::String(text) => Item::Text(text.into()),
            DeValue::Integer(n) => {
                let parsed = i64::from_str_radix(n.as_str(), n.radix());
                Item::Whole(parsed.map_err(|_| Fault::at(line, "", format!("the number {n} does not fit into 64 bits")))?)
            }
            DeValue::Float(x) => {
                let parsed = x.as_str().parse();
                Item::Real(parsed.map_err(|_| Fault::at(line, "", format!("{x} is not a number")))?)
            }
            DeValue::Boolean(b) => Item::Flag(b),
            DeValue::Datetime(d) => Item::Date(d.to_string().into()),
            DeValue::Array(values) => Item::List(values.into_iter().map(|v| self.node(v)).collect::<Result<_, _>>()?),
            DeValue::Table(table) => return self.table(table, line),
        };
        Ok(Node { line, item })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_value_has_its_line_and_order() {
        let node = Node::parse("b = 1\n[z]\nx = [1,\n 2.5]\n[[a]]\nq = { y = 'é', x = 0x10 }\n[[a]]\n").unwrap();
        let root = node.as_table().unwrap();
        assert_eq!(root.entries.iter().map(|e| (&*e.key, e.line)).collect::<Vec<_>>(), [("b", 1), ("z", 2), ("a", 5)]);
        let Item::List(tables) = &root.get("a").unwrap().node.item else { panic!("a list") };
        assert_eq!((tables[0].line, tables[1].line), (5, 7));
        assert_eq!(tables[0].as_table().unwrap().get("q").unwrap().node.label(), r#"{ y = "é", x = 16 }"#);
        let x = &root.get("z").unwrap().node.as_table().unwrap().get("x").unwrap().node;
        let Item::List(numbers) = &x.item else { panic!("a list") };
        assert_eq!((numbers[1].line, numbers[1].label()), (4, "2.5".to_owned()));
        assert_eq!(node.to_json()["a"][0]["q"]["x"], 16);
    }

    #[test]
    fn a_syntax_error_has_a_line() {
        let fault = Node::parse("a = 1\nb = [1\nc = 2").unwrap_err();
        assert!(fault.line >= 2 && fault.problem.starts_with("not valid TOML"), "{fault}");
        assert_eq!(Node::parse("a = 1\na = 2").unwrap_err().line, 2);
        assert_eq!(Node::parse("\na = 99999999999999999999").unwrap_err().line, 2);
    }
}
