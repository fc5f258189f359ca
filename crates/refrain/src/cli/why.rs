//! The arguments of the commands that say why: `explain`, `misses`, `feedback`, `tune`.

use std::path::PathBuf;

use clap::{ArgGroup, Args, ValueEnum};

use super::AdminArguments;

const EXPLAIN_EXAMPLES: &str = "\
Examples:
  refrain explain --request req.json --as acme/ann       would ann's request hit? from what, or why not?
  refrain explain --request req.json --key open-webui    the same for whoever has that API key
  refrain explain --request a.json --against b.json      in which parts do two requests differ?

The file is a request's body, or an object that says more:
  {\"path\": \"/v1/messages\", \"headers\": {\"anthropic-beta\": \"x\"}, \"body\": {...},
   \"identity\": {\"tenant\": \"acme\", \"user\": \"ann\", \"claims\": {\"project\": \"x\"}}}

Nothing is sent upstream, stored or counted. Parts of keys are told as hashes; --show-text tells what they hold.
Exit: 0 explained, 1 refrain can't be reached or refuses, 2 the command line is wrong.";

/// What to explain.
#[derive(Clone, Debug, Args)]
#[command(after_help = EXPLAIN_EXAMPLES)]
pub struct ExplainArguments {
    /// File with a request, or `-` for standard input
    #[arg(long, value_name = "FILE")]
    pub request: PathBuf,
    /// Another one: say in which parts of their keys the two differ
    #[arg(long, value_name = "FILE")]
    pub against: Option<PathBuf>,
    /// How they come.
    #[command(flatten)]
    pub asked: AskedArguments,
    /// Who asks: whoever has the API key of this name in the config
    #[arg(long, value_name = "NAME", conflicts_with = "identity")]
    pub key: Option<String>,
    /// Tell texts, and not only their hashes
    #[arg(long)]
    pub show_text: bool,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
    /// How to reach it
    #[command(flatten)]
    pub admin: AdminArguments,
}

/// How a request in a file comes.
#[derive(Clone, Debug, Args)]
pub struct AskedArguments {
    /// Where the request goes, unless its file says [default: /v1/chat/completions]
    #[arg(long, value_name = "PATH", requires = "request")]
    pub path: Option<String>,
    /// Who asks, as if verified: TENANT/USER, or TENANT for somebody without a user [default: as the headers say]
    #[arg(long = "as", id = "identity", value_name = "TENANT/USER", requires = "request")]
    pub identity: Option<String>,
    /// Where it comes in [default: the first listener]
    #[arg(long, value_name = "NAME", requires = "request")]
    pub listener: Option<String>,
}

const MISSES_EXAMPLES: &str = "\
What keeps requests apart: each noted miss is held against the most similar earlier one of its route, and the parts of the
key in which alone the two differ are counted. Noted are the misses of a part of the questions (`cache.miss_sample` of a
route), the last 4096, as hashes, in memory.

Exit: 0 told, 1 refrain can't be reached or refuses, 2 the command line is wrong.";

/// What to tell of misses.
#[derive(Clone, Debug, Args)]
#[command(after_help = MISSES_EXAMPLES)]
pub struct MissesArguments {
    /// This route only
    #[arg(long, value_name = "ROUTE")]
    pub route: Option<String>,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
    /// How to reach it
    #[command(flatten)]
    pub admin: AdminArguments,
}

const FEEDBACK_EXAMPLES: &str = "\
Nothing changes without --yes: first look, then mean it.

Examples:
  refrain feedback --id chatcmpl-7f3a            the answer with this id: is it stored, and who was served it?
  refrain feedback --id chatcmpl-7f3a --yes      it is wrong: remove it everywhere, and remember that
  refrain feedback --key 3f2a... --yes           the same by its key (`refrain-debug`, `refrain explain`)
  refrain feedback --request req.json --as acme/ann    what ann is served for this request, by whatever way
  refrain feedback --key 3f2a... --verdict right --yes    it is right: keep it, and remember that

The file of --request is as that of `refrain explain`: a body, or an object that says more.
Who was served is known of the last 16384 answers that this proxy stored, or served to others than who asked first; with
several proxies ask each. What is remembered goes to labels.jsonl beside the store, for `refrain tune --log`.
Exit: 0 done (also if nothing matched), 1 it could not be done, 2 the command line is wrong.";

/// What somebody says of an answer.
#[derive(Clone, Debug, Args)]
#[command(after_help = FEEDBACK_EXAMPLES)]
#[command(group(ArgGroup::new("answer").required(true).args(["id", "key", "request"])))]
pub struct FeedbackArguments {
    /// The answer's id, as its readers see it (`chatcmpl-...`, `msg_...`)
    #[arg(long, value_name = "ID")]
    pub id: Option<String>,
    /// The answer's key
    #[arg(long, value_name = "HEX", value_parser = key)]
    pub key: Option<String>,
    /// File with the request that it answered, or `-` for standard input
    #[arg(long, value_name = "FILE")]
    pub request: Option<PathBuf>,
    /// With --request: how it came.
    #[command(flatten)]
    pub asked: AskedArguments,
    /// With --request: who asks: whoever has the API key of this name in the config
    #[arg(long, value_name = "NAME", conflicts_with = "identity", requires = "request")]
    pub as_key: Option<String>,
    /// What is said of it
    #[arg(long, value_enum, default_value_t = Said::Wrong)]
    pub verdict: Said,
    /// Do it; without this it is only looked up
    #[arg(long)]
    pub yes: bool,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
    /// How to reach it
    #[command(flatten)]
    pub admin: AdminArguments,
}

/// What is said of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Said {
    /// It is no answer to what was asked: it is removed
    Wrong,
    /// It is one
    Right,
}

const TUNE_EXAMPLES: &str = "\
Examples:
  refrain tune --labels pairs.tsv --config refrain.toml --route chat    from pairs of questions that somebody judged
  refrain tune --log shadow.jsonl --route chat                          from what shadow mode saw
  refrain tune --log labels.jsonl                                       from what `refrain feedback` remembers

A labelled file has tab-separated columns with a header: a and b, two questions, and label, 1 if one answer serves both,
else 0. A log has a JSON object a line with similarity and same (true, false), or answers_alike as shadow mode logs it
(target refrain::shadow, log.format = \"json\"): answers that say the same count as right, those that share less than
--alike of their words as wrong, and what is between is left out.

Half of the labels choose the threshold, the other half say what to expect of it.
Exit: 0 a threshold is proposed, 1 none can be, 2 the command line is wrong.";

/// What to tune by.
#[derive(Clone, Debug, Args)]
#[command(after_help = TUNE_EXAMPLES)]
#[command(group(ArgGroup::new("source").required(true).args(["labels", "log"])))]
pub struct TuneArguments {
    /// Labelled pairs of questions; needs the embedder of --config
    #[arg(long, value_name = "FILE", requires = "config")]
    pub labels: Option<PathBuf>,
    /// A log with similarities and labels
    #[arg(long, value_name = "FILE")]
    pub log: Option<PathBuf>,
    /// The config file, for its embedder and the route's vetoes
    #[arg(long, value_name = "FILE", env = "REFRAIN_CONFIG")]
    pub config: Option<PathBuf>,
    /// The route [default: the only one with a semantic tier]
    #[arg(long, value_name = "ROUTE")]
    pub route: Option<String>,
    /// Part of the hits that must be right
    #[arg(long, value_name = "SHARE", default_value_t = 0.98, value_parser = share)]
    pub precision: f64,
    /// How sure that must be
    #[arg(long, value_name = "SHARE", default_value_t = 0.9, value_parser = share)]
    pub confidence: f64,
    /// With --log: answers that share less of their words than this say something else
    #[arg(long, value_name = "SHARE", default_value_t = 0.3, value_parser = share)]
    pub alike: f64,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

fn key(text: &str) -> Result<String, String> {
    crate::purge::parse_key(text).map(|_| text.to_owned())
}

/// A part of a whole, without its ends.
fn share(text: &str) -> Result<f64, String> {
    let share = text.parse().ok().filter(|share: &f64| *share > 0.0 && *share < 1.0);
    share.ok_or_else(|| "a share is a number between 0 and 1, such as 0.98".to_owned())
}
