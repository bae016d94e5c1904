//! What all connections share: the stages, compiled once from the configuration.

use std::sync::Arc;

use tokio::sync::watch;
use tokio::task::JoinSet;

use super::memory::Memory;
use super::strangers::Strangers;
use crate::derive::Derive;
use crate::encode::Fragment;
use crate::enrich::ecs::Metadata;
use crate::envoy::formats::Formats;
use crate::envoy::operator::Content;
use crate::filter::Filters;
use crate::journal::block::Pool;
use crate::redact::{FieldClass, Redactor, Report};
use crate::route::{RouteError, Router};
use crate::{derive, enrich, filter, redact, route};

/// What is recognised in log lines.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Parse {
    /// Envoy's access logs and its own log.
    pub envoy: bool,
    /// Envoy's own log is marked as such.
    pub application: bool,
    /// By which formats access logs are read.
    pub formats: Arc<Formats>,
}

impl Default for Parse {
    fn default() -> Self {
        Self { envoy: true, application: true, formats: Formats::auto() }
    }
}

/// What redaction has to know of the fields that formats name.
pub fn field_classes(formats: &Formats) -> impl Iterator<Item = (String, FieldClass)> {
    formats.contents.iter().filter_map(|(key, content)| {
        let class = match content {
            // Its name may say more.
            Content::Text => return None,
            Content::Url => FieldClass::Url,
            Content::Authority => FieldClass::Authority,
            Content::Query => FieldClass::Query,
            Content::Parameter => FieldClass::Parameter,
            Content::Secret => FieldClass::Secret,
        };
        Some((key.clone(), class))
    })
}

/// What the stages are compiled from.
#[derive(Clone, Debug)]
pub struct Config {
    /// Filters, in order.
    pub filter: filter::Config,
    /// What is recognised.
    pub parse: Parse,
    /// Redaction.
    pub redact: redact::Config,
    /// Fields made from those of access logs.
    pub derive: derive::Config,
    /// Enrichment.
    pub enrich: enrich::Config,
    /// Routing.
    pub route: route::Config,
    /// How many sinks there are.
    pub sinks: usize,
    /// Names of the record fields that sink templates use; their values are kept in each [`crate::journal::block::Partition`].
    pub partition_keys: Arc<[Box<str>]>,
}

/// A stage that does not compile. The configuration was checked for that, so this is a defect.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// A filter.
    #[error(transparent)]
    Filter(#[from] filter::FilterErrors),
    /// A pattern of a path.
    #[error(transparent)]
    Derive(#[from] derive::Fault),
    /// A route.
    #[error(transparent)]
    Route(#[from] RouteError),
}

/// What every connection shares: the compiled stages.
pub struct Pipeline {
    pub(super) filters: Arc<Filters>,
    pub(super) parse: Parse,
    pub(super) passes_applications: bool,
    pub(super) redactor: Redactor,
    pub(super) redactions: Arc<Report>,
    pub(super) derive: Option<Derive>,
    pub(super) router: Router,
    pub(super) fragment: watch::Receiver<Arc<Fragment>>,
    pub(super) partition_keys: Arc<[Box<str>]>,
    pub(super) buffers: Arc<Pool>,
    pub(super) memory: Arc<Memory>,
    pub(super) strangers: Strangers,
}

impl Pipeline {
    /// Compiles the stages, and starts the task that makes a new fragment when task metadata changes.
    ///
    /// # Errors
    /// See [`BuildError`].
    pub fn new(
        config: &Config,
        metadata: watch::Receiver<Arc<Metadata>>,
        tasks: &mut JoinSet<()>,
    ) -> Result<Arc<Self>, BuildError> {
        Ok(Arc::new(Self {
            filters: Arc::new(Filters::new(&config.filter)?),
            parse: config.parse.clone(),
            // What Envoy wrote is told from the rest by what is recognised: without that nothing passes.
            passes_applications: config.parse.envoy && config.redact.application == redact::Application::Pass,
            redactor: Redactor::new(&config.redact),
            redactions: Arc::default(),
            derive: Derive::new(&config.derive)?,
            router: Router::new(&config.route, config.sinks)?,
            fragment: fragments(config.enrich.clone(), metadata, tasks),
            partition_keys: config.partition_keys.clone(),
            buffers: Arc::default(),
            memory: Arc::default(),
            strangers: Strangers::default(),
        }))
    }

    /// What was redacted so far.
    pub fn redactions(&self) -> Arc<Report> {
        self.redactions.clone()
    }

    /// Whether pieces of a Kubernetes node's lines are put together: not where lines are to pass as they came.
    pub(super) fn joins_nodes(&self) -> bool {
        self.parse.envoy && self.parse.application
    }
}

/// The current fragment of enrichment, made anew with each change of the metadata.
fn fragments(
    config: enrich::Config,
    mut metadata: watch::Receiver<Arc<Metadata>>,
    tasks: &mut JoinSet<()>,
) -> watch::Receiver<Arc<Fragment>> {
    let make = move |metadata: &Metadata| Arc::new(Fragment::new(enrich::fields(&config, metadata)));
    let (sender, receiver) = watch::channel(make(&metadata.borrow_and_update()));
    tasks.spawn(async move {
        while metadata.changed().await.is_ok() {
            let fragment = make(&metadata.borrow_and_update());
            sender.send_replace(fragment);
        }
        // The metadata is final; the fragment stays for as long as anyone reads it.
        sender.closed().await;
    });
    receiver
}
