// SPDX-License-Identifier: Apache-2.0 OR MIT
//! `ckptctl ps`: the arenas that are alive.

use std::process::ExitCode;

use ckptctl::sys::abi::CKPT_INFO_KEPT;
use ckptctl::sys::abi::CKPT_INFO_PRIVATE;
use ckptctl::sys::abi::ckpt_info;
use ckptctl::sys::clock;
use ckptctl::sys::device;
use ckptctl::sys::users;
use serde_json::Value;
use serde_json::json;

use super::figures;
use super::module;
use super::output;
use super::output::Column;
use super::prometheus;
use super::status_file;
use super::status_file::Peer;
use super::status_file::Status;

/// List the live arenas and what is replicated: whose, at which epoch, how far behind
///
/// Shows the arenas of the kernel module that this user could open: one's own, and to root those
/// of everybody. Programs that run without the module have none.
///
/// SIZE is address space and costs nothing; RESIDENT is the memory in use. AGE is the time since
/// the last commit, CHANGED is what was written since then. PID is the arena's program: the process
/// that made it, or the one that goes on in it (`ckptctl run --warm`). It is a dash when that is gone
/// or in another pid namespace.
///
/// Then the processes of this host that replicate: primaries, with a line for each spare, and spares.
/// BEHIND is what a spare does not have yet, in commits, in bytes of the chain, and since when.
#[derive(clap::Args)]
pub struct Args {
    /// Print JSON
    #[arg(long)]
    json: bool,
    /// Print the text form of Prometheus, for a textfile collector
    #[arg(long, conflicts_with = "json")]
    prometheus: bool,
}

/// Runs the verb.
pub fn run(args: Args) -> anyhow::Result<ExitCode> {
    let replicating = status_file::all();
    let arenas = match module::open("; programs that run without it have no arenas to list") {
        Ok(device) => device.list()?,
        // There is something to tell without it.
        Err(_) if args.prometheus || !replicating.is_empty() => Vec::new(),
        Err(error) => return Err(error.into()),
    };
    let now_ns = clock::since_boot_ns()?;
    if args.prometheus {
        output::print(&prometheus::text(&arenas, &replicating))?;
        return Ok(ExitCode::SUCCESS);
    }
    if args.json {
        let arenas: Vec<Value> = arenas.iter().map(|arena| json(arena, now_ns)).collect();
        output::print_json(&json!({ "arenas": arenas, "replication": replicating }))?;
        return Ok(ExitCode::SUCCESS);
    }
    if arenas.is_empty() && replicating.is_empty() {
        eprintln!(
            "ckptctl: no live arenas that {} may see",
            users::user_name(users::effective_uid())
        );
    }
    if !arenas.is_empty() {
        output::print(&text(&arenas, now_ns))?;
    }
    if !replicating.is_empty() {
        let between = if arenas.is_empty() { "" } else { "\n" };
        output::print(&format!("{between}{}", links(&replicating)))?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Who replicates with whom, and how far that is.
fn links(replicating: &[Status]) -> String {
    let columns = [
        Column::Words("SERVICE"),
        Column::Words("ROLE"),
        Column::Figures("PID"),
        Column::Figures("TERM"),
        Column::Figures("EPOCH"),
        Column::Words("PEER"),
        Column::Words("LINK"),
        Column::Figures("BEHIND"),
        Column::Figures("BYTES"),
        Column::Figures("FOR"),
    ];
    let rows = replicating.iter().flat_map(|status| {
        let alone = [Peer::default()];
        let peers = match status.peers.as_slice() {
            [] => &alone[..],
            peers => peers,
        };
        let row = |peer: &Peer| {
            let behind = peer.lag_epochs > 0;
            let or_dash = |there: bool, text: String| if there { text } else { "-".to_owned() };
            vec![
                status.service.clone(),
                status.role.clone(),
                status.pid.to_string(),
                status.term.to_string(),
                status.epoch.map_or_else(|| "-".to_owned(), |epoch| epoch.to_string()),
                match (peer.node.as_str(), peer.address.as_str()) {
                    ("", "") => "-".to_owned(),
                    ("", address) => address.to_owned(),
                    (node, _) => node.to_owned(),
                },
                if peer.connected { "up" } else { "down" }.to_owned(),
                or_dash(behind, figures::counted(peer.lag_epochs, "commit")),
                or_dash(behind, figures::bytes(peer.lag_bytes)),
                or_dash(behind, figures::duration((peer.lag_s * 1e9) as u64)),
            ]
        };
        peers.iter().map(row).collect::<Vec<_>>()
    });
    output::table(&columns, rows)
}

fn text(arenas: &[ckpt_info], now_ns: u64) -> String {
    let columns = [
        Column::Figures("ID"),
        Column::Figures("PID"),
        Column::Words("NAME"),
        Column::Figures("SIZE"),
        Column::Figures("RESIDENT"),
        Column::Figures("EPOCH"),
        Column::Figures("AGE"),
        Column::Figures("CHANGED"),
        Column::Words("USER"),
    ];
    let dash = || "-".to_owned();
    let rows = arenas.iter().map(|arena| {
        vec![
            arena.id.to_string(),
            pid(arena).map_or_else(dash, |pid| pid.to_string()),
            device::text(&arena.name),
            figures::bytes(arena.len_bytes),
            figures::bytes(arena.resident_pages << arena.page_shift),
            arena.epoch.to_string(),
            age_ns(arena, now_ns).map_or_else(dash, figures::duration),
            figures::bytes(arena.changed_pages << arena.page_shift),
            users::user_name(arena.uid),
        ]
    });
    output::table(&columns, rows)
}

fn json(arena: &ckpt_info, now_ns: u64) -> Value {
    json!({
        "id": arena.id,
        "pid": pid(arena),
        "name": device::text(&arena.name),
        "private": arena.flags & CKPT_INFO_PRIVATE != 0,
        "kept": arena.flags & CKPT_INFO_KEPT != 0,
        "uid": arena.uid,
        "user": users::user_name(arena.uid),
        "page_shift": arena.page_shift,
        "len_bytes": arena.len_bytes,
        "resident_pages": arena.resident_pages,
        "changed_pages": arena.changed_pages,
        "epoch": arena.epoch,
        "created_age_ns": now_ns.saturating_sub(arena.created_ns),
        "committed_age_ns": age_ns(arena, now_ns),
    })
}

/// Its program, when that is there and visible.
fn pid(arena: &ckpt_info) -> Option<i32> {
    (arena.pid > 0).then_some(arena.pid)
}

/// Time since the last commit, when there was one.
fn age_ns(arena: &ckpt_info, now_ns: u64) -> Option<u64> {
    (arena.committed_ns > 0).then(|| now_ns.saturating_sub(arena.committed_ns))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn arena(name: &str) -> ckpt_info {
        let mut info = ckpt_info {
            size: size_of::<ckpt_info>() as u32,
            flags: 0,
            id: 3,
            len_bytes: 64 << 30,
            epoch: 41,
            resident_pages: 2560,
            changed_pages: 3,
            created_ns: 1_000_000_000,
            committed_ns: 5_000_000_000,
            uid: u32::MAX - 7,
            pid: 4711,
            tracker: 1,
            page_shift: 12,
            name: [0; 64],
        };
        info.name[..name.len()].copy_from_slice(name.as_bytes());
        info
    }

    #[test]
    fn an_arena_is_a_line_with_units() {
        let text = text(&[arena("simulation")], 6_500_000_000);
        let cells: Vec<&str> = text.lines().nth(1).unwrap().split_whitespace().collect();
        assert_eq!(
            cells,
            [
                "3",
                "4711",
                "simulation",
                "64.0",
                "GiB",
                "10.0",
                "MiB",
                "41",
                "1.5",
                "s",
                "12.0",
                "KiB",
                "4294967288"
            ]
        );
    }

    #[test]
    fn what_is_not_known_is_a_dash_and_null() {
        let mut arena = arena("a");
        arena.pid = 0;
        arena.committed_ns = 0;
        let line = text(&[arena], 1).lines().nth(1).unwrap().to_owned();
        assert_eq!(
            line.split_whitespace().filter(|cell| *cell == "-").count(),
            2
        );
        let json = json(&arena, 1);
        assert_eq!(
            (&json["pid"], &json["committed_age_ns"]),
            (&Value::Null, &Value::Null)
        );
    }
}
