// SPDX-License-Identifier: Apache-2.0 OR MIT
//! `ckptctl show`: one commit of a chain.

use std::process::ExitCode;

use ckptctl::store::Chain;
use ckptctl::store::ChainSpec;
use ckptctl::store::CommitInfo;
use ckptctl::store::CommitMeta;
use serde_json::json;

use super::chain_arg;
use super::chain_json;
use super::figures;
use super::output;
use super::output::Column;

/// Show one commit: arena, regions, program, generation, place on disk
#[derive(clap::Args)]
pub struct Args {
    /// The chain's directory; the newest epoch unless one is named
    #[arg(value_name = "DIR[@EPOCH]", value_parser = chain_arg::spec_parser())]
    chain: ChainSpec,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Runs the verb.
pub fn run(args: Args) -> anyhow::Result<ExitCode> {
    let chain = Chain::open(&args.chain.dir)?;
    let epoch = chain_arg::epoch_of(&chain, &args.chain)?;
    let meta = chain.get(epoch)?;
    let live_pages = chain.load(epoch)?.pages();
    let Some(commit) = chain.find(epoch) else { unreachable!("its meta section was read") };
    if args.json {
        output::print_json(&json(&chain, commit, &meta, live_pages))?;
    } else {
        output::print(&text(&chain, commit, &meta, live_pages))?;
    }
    chain_arg::warn(&chain);
    Ok(ExitCode::SUCCESS)
}

fn text(chain: &Chain, commit: &CommitInfo, meta: &CommitMeta, live_pages: u64) -> String {
    let identity = &meta.identity;
    let bytes_of = |pages: u64| figures::bytes(pages << meta.page_shift);
    let build_id = match identity.build_id.as_slice() {
        [] => "none".into(),
        id => figures::hex(id),
    };
    let mut text = output::facts([
        ("epoch", commit.epoch.to_string()),
        ("kind", commit.kind.name().into()),
        ("parent", commit.parent.map_or("none".into(), |parent| parent.to_string())),
        ("generation", figures::hex(&commit.generation)),
        ("time", figures::time(commit.time_ns)),
        ("pause", figures::duration(commit.pause_ns)),
        (
            "written",
            format!(
                "{} with data, {} zero, {} like others; {} unchanged",
                figures::counted(commit.data_pages, "page"),
                figures::count(commit.zero_pages),
                figures::count(commit.shared_pages),
                figures::count(commit.unchanged_pages)
            ),
        ),
        ("stored", figures::bytes(commit.stored_bytes)),
        (
            "image",
            format!("{}, {}", figures::counted(live_pages, "page"), bytes_of(live_pages)),
        ),
        (
            "arena",
            format!("{} at {:#x}", bytes_of(meta.arena_len_pages), meta.arena_base),
        ),
        ("page size", figures::bytes(1 << meta.page_shift)),
        ("program", identity.path.display().to_string()),
        ("build-id", build_id),
        ("loaded at", format!("{:#x}", identity.load_address)),
        ("objects", figures::hex(&identity.objects_digest)),
        (
            "code pointers",
            if identity.no_code_pointers {
                "none in the state, any build can restore it".into()
            } else {
                "possible, only the same build can restore it".into()
            },
        ),
        ("file", format!("{} at byte {}", chain.file_of(commit).display(), commit.offset)),
        ("hash", figures::hex(&commit.hash)),
        ("chain", figures::hex(&chain.chain_id())),
    ]);
    if !meta.regions.is_empty() {
        let columns = [
            Column::Words("REGION"),
            Column::Figures("TYPE"),
            Column::Figures("ADDRESS"),
            Column::Figures("BYTES"),
            Column::Figures("RESERVED"),
        ];
        let rows = meta.regions.iter().map(|region| {
            let place = meta.arena_base.wrapping_add(region.offset_pages << meta.page_shift);
            let address = region.adopted_at.unwrap_or(place);
            vec![
                region.name.clone(),
                region.kind.to_string(),
                format!("{address:#x}"),
                bytes_of(region.len_pages),
                match region.adopted_at {
                    Some(_) => "adopted".into(),
                    None => bytes_of(region.reserve_pages),
                },
            ]
        });
        text += "\n";
        text += &output::table(&columns, rows);
    }
    text
}

fn json(
    chain: &Chain,
    commit: &CommitInfo,
    meta: &CommitMeta,
    live_pages: u64,
) -> serde_json::Value {
    let identity = &meta.identity;
    let regions: Vec<serde_json::Value> = meta
        .regions
        .iter()
        .map(|region| {
            json!({
                "name": region.name,
                "type": region.kind,
                "offset_pages": region.offset_pages,
                "len_pages": region.len_pages,
                "reserve_pages": region.reserve_pages,
                "adopted_at": region.adopted_at,
            })
        })
        .collect();
    let mut value = chain_json::commit(chain, commit);
    value["chain_id"] = figures::hex(&chain.chain_id()).into();
    value["live_pages"] = live_pages.into();
    value["arena"] = json!({
        "base": meta.arena_base,
        "len_pages": meta.arena_len_pages,
        "page_shift": meta.page_shift,
    });
    value["regions"] = regions.into();
    value["identity"] = json!({
        "path": identity.path.display().to_string(),
        "build_id": figures::hex(&identity.build_id),
        "load_address": identity.load_address,
        "objects_digest": figures::hex(&identity.objects_digest),
        "no_code_pointers": identity.no_code_pointers,
    });
    value
}
