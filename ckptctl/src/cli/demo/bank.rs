// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The program of the demonstration: a bank that keeps its accounts in memory. Whatever happens,
//! no coin may come or go.

use std::process::ExitCode;

use anyhow::bail;
use ckptctl::Context;
use ckptctl::Options;
use ckptctl::RegionSpec;
use ckptctl::sys::memory::PAGE;
use nix::sys::signal::Signal;
use nix::sys::signal::raise;

use super::super::figures::count;
use super::super::figures::counted;

/// Accounts, each on a page of its own.
const ACCOUNTS: usize = 2000;
/// Coins that an account begins with.
const COINS: i64 = 1000;
/// Transfers from commit to commit.
const PER_COMMIT: u64 = 25;

/// What the program does before it ends.
#[derive(clap::Args)]
pub struct BankArgs {
    /// Transfers, all together
    #[arg(long, hide = true, default_value_t = 100)]
    transfers: u64,
    /// Kill itself in the middle of the last one
    #[arg(long, hide = true)]
    killed: bool,
    /// Let a bug make coins, commit that, notice it and roll back
    #[arg(long, hide = true)]
    bug: bool,
}

/// The state: plain data, for which zeros are a value.
#[repr(C, align(4096))]
struct Bank {
    /// Transfers that were made.
    transfers: u64,
    /// What the next one is drawn from.
    random: u64,
    accounts: [Account; ACCOUNTS],
}

#[repr(C, align(4096))]
struct Account {
    coins: i64,
    /// As in life, no two are alike.
    papers: [u64; 200],
}

impl Bank {
    fn open_accounts(&mut self) {
        self.random = 88_172_645_463_325_252;
        for at in 0..ACCOUNTS {
            self.accounts[at].coins = COINS;
            for paper in 0..200 {
                self.draw(1);
                self.accounts[at].papers[paper] = self.random;
            }
        }
    }

    fn draw(&mut self, below: usize) -> usize {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        (self.random % below as u64) as usize
    }

    /// Moves coins; `between` is done when they have left the one and have not come to the other.
    fn transfer(&mut self, between: impl FnOnce(&Bank, usize, i64)) {
        let (from, to) = (self.draw(ACCOUNTS), self.draw(ACCOUNTS));
        let coins = self.draw(100) as i64 + 1;
        self.accounts[from].coins -= coins;
        between(self, from, coins);
        self.accounts[to].coins += coins;
        self.transfers += 1;
    }

    fn total(&self) -> i64 {
        self.accounts.iter().map(|account| account.coins).sum()
    }

    fn tell(&self, what: &str) {
        println!(
            "{what}: {}, {} coins",
            counted(self.transfers, "transfer"),
            count(self.total().unsigned_abs())
        );
    }
}

/// Runs the program.
pub fn run(args: &BankArgs) -> anyhow::Result<ExitCode> {
    let context = Context::open(Options::new().name("bank").arena_bytes(64 << 20))?;
    let region = context.region(&RegionSpec {
        name: "bank",
        kind: 1,
        len_bytes: size_of::<Bank>() as u64,
        reserve_bytes: 0,
    })?;
    const { assert!(align_of::<Bank>() == PAGE) }
    // SAFETY: The region is this program's, large enough and page-aligned. It is zeroed when it
    // is new, and was a bank before when it was restored. The reference ends before the context
    // does; a rollback, which writes to it as well, is made by this thread between its uses.
    let bank: &mut Bank = unsafe { region.cast().as_mut() };
    match context.restored_epoch() {
        Some(epoch) => bank.tell(&format!("restored epoch {epoch}")),
        None => bank.open_accounts(),
    }
    while bank.transfers < args.transfers {
        let last = bank.transfers + 1 == args.transfers;
        bank.transfer(|bank, from, coins| {
            if args.killed && last {
                bank.tell(&format!("kill -9 with {coins} coins on their way from account {from}"));
                // What was printed must get out; nothing else does.
                let _ = raise(Signal::SIGKILL);
            }
        });
        if bank.transfers % PER_COMMIT == 0 {
            let report = context.commit_sync()?;
            let pages = count(report.pages);
            bank.tell(&format!("epoch {} saved, {pages} pages", report.epoch));
        }
    }
    if args.bug {
        make_coins(&context, bank)?;
    }
    if bank.total() != COINS * ACCOUNTS as i64 {
        bail!("the bank has {} coins: some came or went", bank.total());
    }
    context.close()?;
    Ok(ExitCode::SUCCESS)
}

fn make_coins(context: &Context, bank: &mut Bank) -> anyhow::Result<()> {
    let Some(good) = context.epoch()? else {
        bail!("nothing was committed");
    };
    bank.accounts[7].coins += 1_000_000;
    let bad = context.commit_sync()?.epoch;
    bank.tell(&format!("epoch {bad} saved, with a bug's work"));
    let report = context.rollback(good)?;
    bank.tell(&format!(
        "rolled back to epoch {} as epoch {}, {} put right",
        report.to,
        report.epoch,
        counted(report.pages, "page")
    ));
    Ok(())
}
