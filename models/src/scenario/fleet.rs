//! Blocks that stand for many things: `count` and `table`.

use super::error::Fault;
use super::files::Files;
use super::value::{At, Member, Text};

/// Most members of all blocks of one kind.
pub(crate) const MAX_MEMBERS: u64 = 10_000_000;

/// What a block says about its members.
pub(crate) struct Fleet<'a> {
    /// The kind of block, like `vm`.
    pub(crate) kind: &'static str,
    pub(crate) count: Option<&'a At<u64>>,
    pub(crate) table: Option<&'a At<String>>,
    pub(crate) name: &'a Text,
    /// The seed of the scenario.
    pub(crate) seed: u64,
}

impl Fleet<'_> {
    /// Calls `make` for every member, with its name. `made` is how many things of this kind there are already.
    ///
    /// # Errors
    /// When there are too many members, the table cannot be read, or a name fails; and the first error of `make`.
    pub(crate) fn members(
        &self,
        files: &mut Files,
        made: usize,
        mut make: impl FnMut(&Member<'_>, &mut Files) -> Result<(), Fault>,
    ) -> Result<(), Fault> {
        let key = format!("{}.name", self.kind);
        let room = MAX_MEMBERS.saturating_sub(made as u64);
        let too_many = |line, key: &str| {
            Fault::at(line, format!("{}.{key}", self.kind), format!("more than {MAX_MEMBERS} members of this kind in all"))
        };
        let mut name = String::new();
        let mut one = |index, row, files: &mut Files| {
            self.name.put(&Member { index, row, seed: self.seed, name: "" }, &key, &mut name)?;
            make(&Member { index, row, seed: self.seed, name: &name }, files)
        };
        match (self.count, self.table) {
            (Some(_), Some(table)) => {
                Err(Fault::at(table.line, format!("{}.table", self.kind), "a block has either `count` or `table`, not both"))
            }
            (Some(count), None) if count.value > room => Err(too_many(count.line, "count")),
            (Some(count), None) => (0..count.value).try_for_each(|i| one(Some(i), None, files)),
            (None, Some(at)) => {
                let place = |fault: Fault| fault.or_line(at.line).under("table").under(self.kind);
                let table = files.table(&at.value, MAX_MEMBERS).map_err(place)?;
                if table.rows() > room {
                    return Err(too_many(at.line, "table"));
                }
                (0..table.rows()).try_for_each(|i| one(Some(i), table.row(i), files))
            }
            (None, None) if room == 0 => Err(too_many(self.name.line, "name")),
            (None, None) => one(None, None, files),
        }
    }
}
