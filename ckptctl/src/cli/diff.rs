// SPDX-License-Identifier: Apache-2.0 OR MIT
//! `ckptctl diff`: what is different between two epochs.

use std::ops::Range;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::anyhow;
use anyhow::bail;
use ckptctl::store::Chain;
use ckptctl::store::ChainSpec;
use ckptctl::store::CommitInfo;
use ckptctl::store::CommitMeta;
use ckptctl::store::PageDifference;
use ckptctl::store::RegionEntry;
use serde_json::json;

use super::arena_map::Area;
use super::arena_map::ArenaMap;
use super::chain_arg;
use super::figures;
use super::output;
use super::output::Column;

/// Compare two epochs: which regions and pages differ, and in how many bytes
///
/// The two may be of one chain or of two, say a program's own and one that was pulled from it. Pages
/// are compared by their content: what was written to and has the same bytes again does not
/// differ. Every page that is read is checked.
#[derive(clap::Args)]
pub struct Args {
    /// The chain and epoch to compare from; the newest epoch unless one is named
    #[arg(value_name = "DIR[@EPOCH]", value_parser = chain_arg::spec_parser())]
    from: ChainSpec,
    /// The chain and epoch to compare with
    #[arg(value_name = "DIR[@EPOCH]", value_parser = chain_arg::spec_parser())]
    to: ChainSpec,
    /// Print JSON, with the numbers of the pages
    #[arg(long)]
    json: bool,
    /// Draw the arena to FILE: how recently and how often the commits in between wrote each page
    ///
    /// Both epochs must be of one chain.
    #[arg(long, value_name = "FILE")]
    svg: Option<PathBuf>,
}

/// Runs the verb.
pub fn run(args: Args) -> anyhow::Result<ExitCode> {
    let chain = Chain::open(&args.from.dir)?;
    let other = match args.to.dir == args.from.dir {
        true => None,
        false => Some(Chain::open(&args.to.dir)?),
    };
    let to_chain = other.as_ref().unwrap_or(&chain);
    let from = End::new(&chain, &args.from)?;
    let to = End::new(to_chain, &args.to)?;
    if args.svg.is_some() && chain.chain_id() != to_chain.chain_id() {
        bail!("--svg draws what commits did, so both epochs must be of one chain");
    }
    let mut areas = areas(&from.meta, &to.meta);
    chain.compare(from.commit.epoch, (to_chain, to.commit.epoch), |page| {
        let area = areas.partition_point(|area| area.area.pages.end <= page.pgoff);
        areas[area].add(page);
    })?;
    areas.retain(|area| area.area.name.is_some() || area.changed_pages > 0);
    if let Some(path) = &args.svg {
        let written = to_chain.written_between(from.commit.epoch, to.commit.epoch)?;
        let title = format!(
            "{}: commits behind epoch {} up to epoch {}",
            args.from.dir.display(),
            from.commit.epoch,
            to.commit.epoch
        );
        let shown: Vec<&Area> = areas.iter().map(|area| &area.area).collect();
        let map = ArenaMap::new(&shown, &written, to.meta.page_shift);
        let drawing = map.draw(&title).to_string() + "\n";
        std::fs::write(path, drawing)
            .map_err(|error| anyhow!("cannot write {}: {error}", path.display()))?;
    }
    if args.json {
        output::print_json(&json(&from, &to, &areas))?;
    } else {
        output::print(&text(&from, &to, &areas))?;
    }
    chain_arg::warn(&chain);
    if let Some(other) = &other {
        chain_arg::warn(other);
    }
    Ok(ExitCode::SUCCESS)
}

/// One of the two epochs.
struct End<'a> {
    chain: &'a Chain,
    commit: &'a CommitInfo,
    meta: CommitMeta,
}

impl<'a> End<'a> {
    fn new(chain: &'a Chain, spec: &ChainSpec) -> anyhow::Result<End<'a>> {
        let epoch = chain_arg::epoch_of(chain, spec)?;
        let meta = chain.get(epoch)?;
        let Some(commit) = chain.find(epoch) else {
            unreachable!("its meta section was read")
        };
        Ok(End {
            chain,
            commit,
            meta,
        })
    }
}

/// A part of the arena, and what differs in it.
struct AreaDifference {
    area: Area,
    /// Of the region in the two epochs.
    len_pages: [Option<u64>; 2],
    kind: u32,
    changed_pages: u64,
    changed_bytes: u64,
    /// The pages that differ.
    ranges: Vec<Range<u64>>,
}

impl AreaDifference {
    fn add(&mut self, page: PageDifference) {
        self.changed_pages += 1;
        self.changed_bytes += u64::from(page.bytes);
        match self.ranges.last_mut() {
            Some(last) if last.end == page.pgoff => last.end += 1,
            _ => self.ranges.push(page.pgoff..page.pgoff + 1),
        }
    }

    /// Whether it is there in one epoch only.
    fn note(&self) -> &'static str {
        match (&self.area.name, self.len_pages) {
            (None, _) => "",
            (_, [None, _]) => "new",
            (_, [_, None]) => "gone",
            (_, [Some(from), Some(to)]) if from < to => "grown",
            (_, [Some(from), Some(to)]) if from > to => "shorter",
            _ => "",
        }
    }
}

/// All regions of both epochs, and what is between them, ascending, without gaps. A region is
/// as long as what is reserved for it: two epochs may differ in what one of them does not have yet.
fn areas(from: &CommitMeta, to: &CommitMeta) -> Vec<AreaDifference> {
    let of = |meta: &CommitMeta, wanted: &RegionEntry| {
        let same = |region: &&RegionEntry| {
            region.name == wanted.name && region.offset_pages == wanted.offset_pages
        };
        meta.regions.iter().find(same).map(|region| region.len_pages)
    };
    let mut regions: Vec<&RegionEntry> = to.regions.iter().collect();
    regions.extend(from.regions.iter().filter(|region| of(to, region).is_none()));
    regions.sort_by_key(|region| region.offset_pages);
    let mut areas = Vec::new();
    let mut end = 0;
    let mut push = |name: Option<&RegionEntry>, pages: Range<u64>| {
        let len = name.map(|region| [of(from, region), of(to, region)]);
        areas.push(AreaDifference {
            area: Area {
                name: name.map(|region| region.name.clone()),
                // What a region does not have is not drawn.
                len_pages: match len {
                    Some([from, to]) => from.max(to).unwrap_or(0),
                    None => pages.end.saturating_sub(pages.start),
                },
                pages,
            },
            len_pages: len.unwrap_or_default(),
            kind: name.map_or(0, |region| region.kind),
            changed_pages: 0,
            changed_bytes: 0,
            ranges: Vec::new(),
        });
    };
    for region in regions {
        // Regions of branches that do not know of each other may overlap.
        let start = region.offset_pages.max(end);
        let region_end = (region.offset_pages + region.reserve_pages).max(start);
        if start > end {
            push(None, end..start);
        }
        push(Some(region), start..region_end);
        end = region_end;
    }
    push(None, end..u64::MAX);
    areas
}

fn text(from: &End<'_>, to: &End<'_>, areas: &[AreaDifference]) -> String {
    let end = |end: &End<'_>| {
        format!(
            "{}@{}, {}",
            end.chain.dir().display(),
            end.commit.epoch,
            figures::time(end.commit.time_ns)
        )
    };
    let pages: u64 = areas.iter().map(|area| area.changed_pages).sum();
    let bytes: u64 = areas.iter().map(|area| area.changed_bytes).sum();
    let different = match pages {
        0 => "nothing".into(),
        _ => format!(
            "{}, {}; {} in them",
            figures::counted(pages, "page"),
            figures::bytes(pages << to.meta.page_shift),
            figures::counted(bytes, "byte")
        ),
    };
    let mut text = output::facts([
        ("from", end(from)),
        ("to", end(to)),
        ("different", different),
    ]);
    let rows: Vec<Vec<String>> = areas
        .iter()
        .map(|area| {
            let len = area.len_pages[1].or(area.len_pages[0]);
            vec![
                area.area.label().into(),
                len.map_or("-".into(), figures::count),
                figures::count(area.changed_pages),
                len.map_or("-".into(), |len| figures::percent(area.changed_pages, len)),
                figures::count(area.changed_bytes),
                area.note().into(),
            ]
        })
        .collect();
    if !rows.is_empty() {
        let columns = [
            Column::Words("REGION"),
            Column::Figures("PAGES"),
            Column::Figures("DIFFERENT"),
            Column::Figures("SHARE"),
            Column::Figures("BYTES"),
            Column::Words("NOTE"),
        ];
        text += "\n";
        text += &output::table(&columns, rows);
    }
    text
}

fn json(from: &End<'_>, to: &End<'_>, areas: &[AreaDifference]) -> serde_json::Value {
    let end = |end: &End<'_>| {
        json!({
            "dir": end.chain.dir().display().to_string(),
            "chain_id": figures::hex(&end.chain.chain_id()),
            "epoch": end.commit.epoch,
            "time": figures::time(end.commit.time_ns),
            "time_ns": end.commit.time_ns,
        })
    };
    let regions: Vec<serde_json::Value> = areas
        .iter()
        .map(|area| {
            let ranges: Vec<[u64; 2]> = area
                .ranges
                .iter()
                .map(|range| [range.start, range.end - range.start])
                .collect();
            json!({
                "name": area.area.name,
                "type": area.area.name.is_some().then_some(area.kind),
                "offset_pages": area.area.pages.start,
                "from_len_pages": area.len_pages[0],
                "to_len_pages": area.len_pages[1],
                "changed_pages": area.changed_pages,
                "changed_bytes": area.changed_bytes,
                "ranges": ranges,
            })
        })
        .collect();
    json!({
        "from": end(from),
        "to": end(to),
        "page_shift": to.meta.page_shift,
        "changed_pages": areas.iter().map(|area| area.changed_pages).sum::<u64>(),
        "changed_bytes": areas.iter().map(|area| area.changed_bytes).sum::<u64>(),
        "regions": regions,
    })
}
