// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What runs here, in the text form of Prometheus.

use std::fmt::Write;

use ckptctl::sys::abi::ckpt_info;
use ckptctl::sys::device;

use super::status_file::Peer;
use super::status_file::Status;

/// A metric of arenas or of links.
struct Metric<T> {
    name: &'static str,
    help: &'static str,
    kind: &'static str,
    value: fn(&T) -> f64,
}

const ARENA_METRICS: [Metric<ckpt_info>; 3] = [
    Metric {
        name: "ckpt_arena_epoch",
        help: "The last commit of an arena.",
        kind: "gauge",
        value: |info| info.epoch as f64,
    },
    Metric {
        name: "ckpt_arena_resident_bytes",
        help: "Memory that an arena takes.",
        kind: "gauge",
        value: |info| (info.resident_pages << info.page_shift) as f64,
    },
    Metric {
        name: "ckpt_arena_changed_bytes",
        help: "What was written since the last commit.",
        kind: "gauge",
        value: |info| (info.changed_pages << info.page_shift) as f64,
    },
];

const LINK_METRICS: [Metric<Peer>; 6] = [
    Metric {
        name: "ckpt_replication_connected",
        help: "1 while there is a link.",
        kind: "gauge",
        value: |peer| f64::from(u8::from(peer.connected)),
    },
    Metric {
        name: "ckpt_replication_durable_epoch",
        help: "The newest epoch on the spare's disk.",
        kind: "gauge",
        value: |peer| peer.durable as f64,
    },
    Metric {
        name: "ckpt_replication_lag_epochs",
        help: "Commits that the spare does not have.",
        kind: "gauge",
        value: |peer| peer.lag_epochs as f64,
    },
    Metric {
        name: "ckpt_replication_lag_bytes",
        help: "Bytes of the commits that the spare does not have.",
        kind: "gauge",
        value: |peer| peer.lag_bytes as f64,
    },
    Metric {
        name: "ckpt_replication_lag_seconds",
        help: "Age of the first commit that the spare does not have.",
        kind: "gauge",
        value: |peer| peer.lag_s,
    },
    Metric {
        name: "ckpt_replication_bytes_total",
        help: "Bytes of records sent or received since the process was started.",
        kind: "counter",
        value: |peer| peer.bytes as f64,
    },
];

/// A value of a label, as it stands between quotes.
fn quoted(text: &str) -> String {
    text.replace('\\', "\\\\")
        .replace('"', "\\\"")
        .replace('\n', "\\n")
}

fn put<T>(text: &mut String, metrics: &[Metric<T>], of: &[(String, &T)]) {
    for metric in metrics.iter().filter(|_| !of.is_empty()) {
        let Metric {
            name,
            help,
            kind,
            value,
        } = metric;
        // Writing to a string does not fail.
        let _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} {kind}");
        for (labels, thing) in of {
            let _ = writeln!(text, "{name}{{{labels}}} {}", value(thing));
        }
    }
}

/// The text.
pub fn text(arenas: &[ckpt_info], replicating: &[Status]) -> String {
    let mut text = String::new();
    let arenas: Vec<_> = arenas
        .iter()
        .map(|info| {
            let name = quoted(&device::text(&info.name));
            (format!("id=\"{}\",name=\"{name}\"", info.id), info)
        })
        .collect();
    put(&mut text, &ARENA_METRICS, &arenas);
    let links: Vec<_> = replicating
        .iter()
        .flat_map(|status| status.peers.iter().map(move |peer| (status, peer)))
        .map(|(status, peer)| {
            let labels = [
                ("service", &status.service),
                ("role", &status.role),
                ("node", &status.node),
                ("peer", &peer.node),
                ("address", &peer.address),
            ];
            let labels = labels.map(|(name, value)| format!("{name}=\"{}\"", quoted(value)));
            (labels.join(","), peer)
        })
        .collect();
    put(&mut text, &LINK_METRICS, &links);
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_metric_is_explained_once_and_has_a_line_for_each_link() {
        let peer = |node: &str, lag_epochs| Peer {
            node: node.into(),
            address: format!("{node}:7100"),
            connected: true,
            lag_epochs,
            lag_s: 0.25,
            ..Peer::default()
        };
        let status = Status {
            pid: 1,
            role: "primary".into(),
            service: "k\"v".into(),
            node: "west".into(),
            term: 3,
            dir: "/var/lib/kv".into(),
            epoch: Some(9),
            peers: vec![peer("east", 2), peer("north", 0)],
        };
        let text = text(&[], &[status]);
        let lines: Vec<&str> = text
            .lines()
            .filter(|line| line.contains("lag_epochs"))
            .collect();
        assert_eq!(
            lines,
            [
                "# HELP ckpt_replication_lag_epochs Commits that the spare does not have.",
                "# TYPE ckpt_replication_lag_epochs gauge",
                "ckpt_replication_lag_epochs{service=\"k\\\"v\",role=\"primary\",node=\"west\",peer=\"east\",address=\"east:7100\"} 2",
                "ckpt_replication_lag_epochs{service=\"k\\\"v\",role=\"primary\",node=\"west\",peer=\"north\",address=\"north:7100\"} 0",
            ]
        );
        assert!(text.contains("lag_seconds{service=\"k\\\"v\",role=\"primary\",node=\"west\",peer=\"east\",address=\"east:7100\"} 0.25\n"));
        assert!(!text.contains("ckpt_arena"));
    }
}
