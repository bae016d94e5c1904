//! The unsupported sink: stands for an output that this program does not have, and drops what is routed to it.
//!
//! A configuration made for another program may name outputs that only that program has. They must not keep the others from
//! working, and what they would have got must not vanish unseen: it is counted as dropped, with a reason of its own. Nothing
//! is done a record.

use super::{Context, Error};
use crate::telemetry::account::Reason;

/// An output that this program does not have.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// Its name.
    pub plugin: String,
}

/// Drops every record, and says so when the first comes.
pub async fn run(config: &Config, mut ctx: Context) -> Result<(), Error> {
    let settler = ctx.reader.settler();
    let mut is_said = false;
    while let Some((sequence, block)) = ctx.reader.next().await {
        let records = block.records_for(ctx.id) as u64;
        if records > 0 && !std::mem::replace(&mut is_said, true) {
            let (sink, plugin, reason) = (&*ctx.name, &*config.plugin, Reason::UnsupportedOutput.label());
            tracing::error!(sink, plugin, reason, "this output is not supported: its records are dropped and counted");
        }
        ctx.ledger.lose(Reason::UnsupportedOutput, records);
        settler.settle(sequence);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sink::driver::testing::{Line, Rig, block};

    #[tokio::test]
    async fn every_record_is_dropped_with_its_reason() {
        let (mut rig, ctx) = Rig::new();
        rig.append(block(&[Line::new(0, "{}"), Line { sinks: 2, ..Line::new(0, "{}") }, Line::new(0, "{}")])).await;
        rig.close();
        run(&Config { plugin: "datadog".to_owned() }, ctx).await.unwrap();
        let tally = rig.settled();
        assert_eq!((tally.delivered, tally.lost[Reason::UnsupportedOutput as usize]), (0, 2));
    }
}
