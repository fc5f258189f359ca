//! The arguments of `refrain bench`.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Subcommand, ValueEnum};
use http::Uri;
use refrain_core::Api;

use crate::bench::Objective;

const EXAMPLES: &str = "\
Examples:
  refrain bench --url http://127.0.0.1:8080 --model llama3.2 --workload chat --concurrency 16 --duration 30s
      16 users who wait for each answer (closed loop): how much it can do
  refrain bench --url http://127.0.0.1:8080 --model llama3.2 --rate 20 --objective ttft=500ms,e2e=3s
      20 requests a second, answered or not (open loop): how it feels at that load, and how many are good enough
  refrain bench --url ... --model ... --workload agents --depth 2 --fan-out 4 --shared-tokens 2000
  refrain bench --url ... --model ... --workload mooncake --trace conversation.jsonl --speed 10
  refrain bench --url ... --model ... --repeat 0.3          a third of the questions were asked before
  refrain bench --url ... --model ... --no-cache            every answer is generated, none stored
  refrain bench compare --upstream http://127.0.0.1:11434 --model llama3.2 --out report
      the same requests without a cache, with one, with Redis, with prefix affinity; report.md, results.csv and charts

Sizes:   in words of a fixed list; most tokenizers make one token of each. The server's own counts are in the report.
Loops:   in an open loop latency counts from when a request was due, also if it could not be sent then, and a turn of a
         conversation doesn't wait for the answer before it: what was said is part of the workload.
Hits:    answers that end by their length are never stored. --max-tokens makes many end so; see `finish` in the report.
Key:     REFRAIN_API_KEY, or --key-file.
Ctrl-C:  ends it and reports what there is. Exit: 0 done, 1 nothing was answered, 2 the command line is wrong.";

/// What to measure.
#[derive(Clone, Debug, Args)]
#[command(after_help = EXAMPLES, args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
pub struct BenchArguments {
    /// Without it: one measurement.
    #[command(subcommand)]
    pub command: Option<BenchCommand>,
    /// Server to ask, such as http://127.0.0.1:8080 (several: requests alternate)
    #[arg(long, value_name = "URL", required = true, value_parser = base_url)]
    pub url: Vec<Uri>,
    /// Who is asked how.
    #[command(flatten)]
    pub asking: AskingArguments,
    /// What is asked.
    #[command(flatten)]
    pub workload: WorkloadArguments,
    /// When it is asked.
    #[command(flatten)]
    pub load: LoadArguments,
    /// Write the results as JSON
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
    /// Write the results as CSV: a line of names, a line of values
    #[arg(long, value_name = "FILE")]
    pub csv: Option<PathBuf>,
    /// Write a line of JSON for each request
    #[arg(long, value_name = "FILE")]
    pub log: Option<PathBuf>,
}

/// More than one measurement.
#[derive(Clone, Debug, Subcommand)]
pub enum BenchCommand {
    /// Replay one workload without a cache, with one, with Redis, with prefix affinity; write a report
    Compare(Box<CompareArguments>),
}

/// What to compare.
#[derive(Clone, Debug, Args)]
pub struct CompareArguments {
    /// Server that answers, such as http://127.0.0.1:11434 (several: a pool)
    #[arg(long, value_name = "URL", required = true, value_parser = base_url)]
    pub upstream: Vec<Uri>,
    /// Redis for the set-ups that share a store, such as redis://127.0.0.1:6379 [default: they are left out]
    #[arg(long, value_name = "URL")]
    pub redis: Option<String>,
    /// Proxies of each set-up; requests alternate between them
    #[arg(long, value_name = "N", default_value_t = 2, value_parser = clap::value_parser!(u16).range(1..=16))]
    pub proxies: u16,
    /// How often each set-up is measured, in turns
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u16).range(1..=100))]
    pub rounds: u16,
    /// Folder for report.md, results.csv, ttft.svg, throughput.svg and logs; made if it isn't there
    #[arg(long, value_name = "DIR")]
    pub out: PathBuf,
    /// Who is asked how.
    #[command(flatten)]
    pub asking: AskingArguments,
    /// What is asked.
    #[command(flatten)]
    pub workload: WorkloadArguments,
    /// When it is asked.
    #[command(flatten)]
    pub load: LoadArguments,
}

/// Who is asked how.
#[derive(Clone, Debug, Args)]
pub struct AskingArguments {
    /// Model to ask for
    #[arg(long, value_name = "NAME", required = true)]
    pub model: Option<String>,
    /// What is spoken
    #[arg(long, value_enum, default_value_t = SpokenApi::Chat)]
    pub api: SpokenApi,
    /// File with the API key [default: environment variable REFRAIN_API_KEY, else none]
    #[arg(long, value_name = "FILE")]
    pub key_file: Option<PathBuf>,
    /// PEM file with the authorities that https servers are trusted by [default: the system's]
    #[arg(long, value_name = "FILE")]
    pub ca: Option<PathBuf>,
    /// Ask for whole answers, not for streams
    #[arg(long)]
    pub whole: bool,
    /// Forbid the cache: `Cache-Control: no-cache, no-store`
    #[arg(long)]
    pub no_cache: bool,
    /// Longest wait for an answer
    #[arg(long, value_name = "TIME", default_value = "10m", value_parser = duration)]
    pub timeout: Duration,
}

/// Which API is spoken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum SpokenApi {
    /// OpenAI: /v1/chat/completions
    Chat,
    /// Anthropic: /v1/messages
    Messages,
    /// Ollama: /api/chat
    Ollama,
}

impl SpokenApi {
    /// The API.
    pub(crate) fn api(self) -> Api {
        match self {
            Self::Chat => Api::ChatCompletions,
            Self::Messages => Api::Messages,
            Self::Ollama => Api::OllamaChat,
        }
    }
}

/// What is asked.
#[derive(Clone, Debug, Args)]
pub struct WorkloadArguments {
    /// What is asked
    #[arg(long, value_enum, default_value_t = WorkloadKind::Chat)]
    pub workload: WorkloadKind,
    /// The same seed asks the same in the same order
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub seed: u64,
    /// chat, tools: questions of a conversation
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u16).range(1..=100))]
    pub turns: u16,
    /// Size of a question
    #[arg(long, value_name = "N", default_value_t = 60, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub prompt_tokens: u32,
    /// Size of what the workload takes for earlier answers
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub answer_tokens: u32,
    /// Size of the system prompt, the same in all conversations
    #[arg(long, value_name = "N", default_value_t = 200, value_parser = clap::value_parser!(u32).range(0..=1_000_000))]
    pub shared_tokens: u32,
    /// Longest answer that is asked for; 0: any [default: what a trace says, else any]
    #[arg(long, value_name = "N")]
    pub max_tokens: Option<u32>,
    /// chat, tools, agents: share of conversations that repeat an earlier one word by word, 0 to 1
    #[arg(long, value_name = "SHARE", default_value_t = 0.0, value_parser = share)]
    pub repeat: f64,
    /// chat: file of paraphrases; questions with the same answer stand in a line, with tabs between them
    #[arg(long, value_name = "FILE")]
    pub paraphrases: Option<PathBuf>,
    /// chat: share of conversations that are one question of that file
    #[arg(long, value_name = "SHARE", default_value_t = 0.5, value_parser = share, requires = "paraphrases")]
    pub paraphrase: f64,
    /// agents: levels below the first agent
    #[arg(long, value_name = "N", default_value_t = 2, value_parser = clap::value_parser!(u16).range(1..=6))]
    pub depth: u16,
    /// agents: agents that each one starts
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u16).range(1..=32))]
    pub fan_out: u16,
    /// mooncake, azure, file: the file
    #[arg(long, value_name = "FILE")]
    pub trace: Option<PathBuf>,
    /// mooncake, azure, file: how much faster than it was recorded
    #[arg(long, value_name = "FACTOR", default_value_t = 1.0, value_parser = positive)]
    pub speed: f64,
}

/// The workloads.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum WorkloadKind {
    /// Conversations of several turns
    Chat,
    /// Conversations in which tools are called
    Tools,
    /// Agents that start agents, all with one long beginning
    Agents,
    /// A Mooncake trace (JSONL): prompts share beginnings as its hash_ids say
    Mooncake,
    /// An Azure LLM trace (CSV): arrival times and sizes
    Azure,
    /// Requests of your own (JSONL): bodies, or {"at": seconds, "body": {...}}
    File,
}

impl WorkloadKind {
    /// The word on the command line.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Chat => "chat",
            Self::Tools => "tools",
            Self::Agents => "agents",
            Self::Mooncake => "mooncake",
            Self::Azure => "azure",
            Self::File => "file",
        }
    }
}

/// When it is asked.
#[derive(Clone, Debug, Args)]
pub struct LoadArguments {
    /// Conversations at once: each waits for its answers; with --rate, how many take turns [default: 8, or a trace's times]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub concurrency: Option<u32>,
    /// Requests a second, whether they are answered or not
    #[arg(long, value_name = "N", value_parser = positive)]
    pub rate: Option<f64>,
    /// How the requests of --rate come
    #[arg(long, value_enum, default_value_t = Arrivals::Poisson, requires = "rate")]
    pub arrivals: Arrivals,
    /// How long requests are sent [default: 30s without --requests, or the whole trace]
    #[arg(long, value_name = "TIME", value_parser = duration)]
    pub duration: Option<Duration>,
    /// How many requests are sent, warm-up too [default with compare: 300, if there is no --duration]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub requests: Option<u64>,
    /// Not measured at the beginning, within the duration
    #[arg(long, value_name = "TIME", default_value = "0s", value_parser = duration)]
    pub warm_up: Duration,
    /// Most requests under way at once; what is due beyond waits, and its latency counts
    #[arg(long, value_name = "N", default_value_t = 1024, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub in_flight: u32,
    /// How long answers under way may take after the end
    #[arg(long, value_name = "TIME", default_value = "30s", value_parser = duration)]
    pub grace: Duration,
    /// What makes a request good: ttft=500ms,e2e=3s,gap=100ms (each at most; any of them)
    #[arg(long, value_name = "BOUNDS")]
    pub objective: Option<Objective>,
}

/// How requests come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Arrivals {
    /// At random, as those of many users who don't know of each other
    Poisson,
    /// At equal distances
    Constant,
}

fn duration(text: &str) -> Result<Duration, String> {
    humantime::parse_duration(text).map_err(|_| "write a time such as 500ms, 30s or 5m".to_owned())
}

fn share(text: &str) -> Result<f64, String> {
    let share: f64 = text.parse().map_err(|_| "write a share from 0 to 1, such as 0.3")?;
    if (0.0..=1.0).contains(&share) { Ok(share) } else { Err("a share is from 0 to 1".to_owned()) }
}

fn positive(text: &str) -> Result<f64, String> {
    let number: f64 = text.parse().map_err(|_| "write a number above 0")?;
    if number.is_finite() && number > 0.0 { Ok(number) } else { Err("write a number above 0".to_owned()) }
}

fn base_url(text: &str) -> Result<Uri, String> {
    let expected = || "write a URL such as http://127.0.0.1:8080, without user, path or query".to_owned();
    let url: Uri = text.parse().map_err(|_| expected())?;
    let has_scheme = matches!(url.scheme_str(), Some("http" | "https"));
    let is_plain = url.path() == "/" && url.query().is_none();
    let has_host = url.authority().is_some_and(|authority| !authority.as_str().contains('@'));
    if has_scheme && is_plain && has_host { Ok(url) } else { Err(expected()) }
}
