//! The reserved first and last MiB of a labelled drive: reading the label, checking that nothing but Strand wrote there, and the
//! writes that change it.

use std::io;

use strand_placement::carve::{Layout, MIB};
use strand_placement::verdict::LabelState;

use crate::label::{self, Copy, DiskLabel, SECTOR};
use crate::medium::Medium;
use crate::survey::is_zero;
use crate::table::{Table, table};

/// Both copies of the label, start first.
pub(crate) fn read_copies(medium: &impl Medium) -> io::Result<[Copy; 2]> {
    let mut copies = [Copy::Absent, Copy::Absent];
    if medium.size() < 4 * MIB {
        return Ok(copies);
    }
    for (copy, at) in copies.iter_mut().zip(label::positions(medium.size())) {
        let mut sector = [0; SECTOR];
        medium.read_at(&mut sector, at)?;
        *copy = label::decode(&sector);
    }
    Ok(copies)
}

/// Writes one state of the label: start copy, then end copy, each durable before what follows.
pub(crate) fn write_label(medium: &impl Medium, label: &DiskLabel) -> io::Result<()> {
    for at in label::positions(medium.size()) {
        medium.write_at(&label.encode(), at)?;
        medium.sync()?;
    }
    Ok(())
}

/// Takes both copies of the label away, the start copy last: as long as it is there the drive is ours.
pub(crate) fn clear_label(medium: &impl Medium) -> io::Result<()> {
    for at in label::positions(medium.size()).into_iter().rev() {
        medium.write_at(&[0; SECTOR], at)?;
        medium.sync()?;
    }
    Ok(())
}

/// Writes a partition table: the backup first, so that whenever the primary is there it has one.
pub(crate) fn write_table(medium: &impl Medium, table: &Table) -> io::Result<()> {
    medium.write_at(&table.tail, table.tail_at)?;
    medium.sync()?;
    medium.write_at(&table.head, 0)?;
    medium.sync()
}

/// Takes the partition table away.
pub(crate) fn clear_table(medium: &impl Medium, table: &Table) -> io::Result<()> {
    medium.write_at(&vec![0; table.head.len()], 0)?;
    medium.sync()?;
    medium.write_at(&vec![0; table.tail.len()], table.tail_at)?;
    medium.sync()
}

/// How what lies on the drive contradicts its label; none where it is as Strand left it in this state, at whatever point it was
/// interrupted. Every byte of the reserved areas is accounted for, so that any tool that wrote to the whole drive shows: they
/// all begin within the first MiB.
pub(crate) fn contradiction(medium: &impl Medium, label: &DiskLabel) -> io::Result<Option<String>> {
    if medium.size() != label.size {
        return Ok(Some(format!(
            "it had {} bytes when it was carved and has {} now",
            label.size,
            medium.size()
        )));
    }
    let wanted = table(label, &label.layout)?;
    let (may_be_blank, previous) = match label.state {
        LabelState::Carved => (false, None),
        LabelState::Carving | LabelState::Releasing | LabelState::Erasing => (true, None),
        LabelState::Moving => (false, label.previous.as_ref()),
    };
    let previous = previous.map(|layout| table(label, layout)).transpose()?;
    let size = label.size;
    let last_layout_end = [Some(&label.layout), label.previous.as_ref()]
        .into_iter()
        .flatten()
        .map(layout_end)
        .max()
        .unwrap_or(MIB);
    let tail_from = last_layout_end
        .max(size.saturating_sub(2 * MIB))
        .next_multiple_of(4096);
    for (from, until, ours, before) in [
        (
            0,
            MIB,
            (0, &wanted.head),
            previous.as_ref().map(|table| &table.head),
        ),
        (
            tail_from,
            size,
            (wanted.tail_at, &wanted.tail),
            previous.as_ref().map(|table| &table.tail),
        ),
    ] {
        let mut found = vec![0; (until - from) as usize];
        medium.read_at(&mut found, from)?;
        for position in label::positions(size)
            .into_iter()
            .filter(|position| (from..until).contains(position))
        {
            let at = (position - from) as usize;
            found[at..at + SECTOR].fill(0);
        }
        let (ours_at, ours) = (ours.0 - from, ours.1);
        for (index, block) in found.chunks(wanted.block).enumerate() {
            let at = (index * wanted.block) as u64;
            let expected = |bytes: &[u8]| {
                let inside = at
                    .checked_sub(ours_at)
                    .and_then(|inside| bytes.get(inside as usize..));
                inside.and_then(|rest| rest.get(..block.len())) == Some(block)
            };
            let blank = is_zero(block);
            let in_table = (ours_at..ours_at + ours.len() as u64).contains(&at);
            let fits = match in_table {
                true => {
                    expected(ours)
                        || before.is_some_and(|before| expected(before))
                        || (may_be_blank && blank)
                }
                false => blank,
            };
            if !fits {
                let what = if in_table {
                    "its partition table is not the one that Strand wrote"
                } else {
                    "there is foreign data"
                };
                return Ok(Some(format!("{what} at byte {}", from + at)));
            }
        }
    }
    Ok(None)
}

fn layout_end(layout: &Layout) -> u64 {
    layout
        .partitions()
        .map(|(_, extent)| extent.end())
        .max()
        .unwrap_or(MIB)
}
