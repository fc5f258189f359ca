// How long an answer lives, by what is asked: what changes by the hour is not cached (or briefly), code for longer, facts
// longest. It looks at words only, in English and German: a question that it misjudges as time-sensitive costs a miss.

import { messageRole, messageText } from 'refrain:policy/request@0.1.0';
import { defaults } from 'refrain:policy/route@0.1.0';

// Of the question; its kind shows early.
const QUESTION_BYTES_MAX = 2048;

const TIME_WORDS = [
  'today', 'tonight', 'tomorrow', 'yesterday', 'now', 'currently', 'current', 'latest', 'recent', 'recently', 'news',
  'weather', 'forecast', 'price', 'prices', 'stock', 'stocks', 'score', 'standings', 'schedule', 'traffic', 'live',
  'this week', 'this month', 'this year', 'next week', 'last week', 'so far', 'up to date', 'what time', 'exchange rate',
  'heute', 'morgen', 'gestern', 'jetzt', 'aktuell', 'aktuelle', 'aktuellen', 'neueste', 'neuesten', 'wetter', 'nachrichten',
  'kurs', 'diese woche', 'dieses jahr', 'wie spät',
];
const CODE_WORDS = [
  'code', 'function', 'compile', 'compiler', 'regex', 'sql', 'python', 'javascript', 'typescript', 'rust', 'java', 'bash',
  'stack trace', 'exception', 'segfault', 'unit test', 'refactor', 'api', 'json', 'yaml', 'dockerfile', 'git',
];
const FACT_STARTS = [
  'what is', 'what are', 'what was', 'what does', "what's", 'who was', 'who wrote', 'who invented', 'when was', 'when did',
  'where is', 'why is', 'why do', 'how does', 'define', 'explain', 'translate', 'capital of', 'was ist', 'was bedeutet',
  'wer war', 'wann war', 'wo liegt', 'warum', 'erkläre', 'übersetze',
];

const REASON = 'time_sensitive';
const INTENTS = ['time', 'code', 'fact', 'other'];
const HOUR_S = 3600;

const DEFAULTS = {
  // 0: no cache at all.
  time_ttl_s: 0,
  code_ttl_s: 24 * HOUR_S,
  fact_ttl_s: 7 * 24 * HOUR_S,
  time_words: [],
};

let settings;

// Words and phrases as whole words, in one pass.
function anyOf(words, front = '(?<![\\p{L}\\p{N}])') {
  const escaped = words.map((word) => word.toLowerCase().replace(/[.*+?^${}()|[\]\\]/g, '\\$&'));
  return new RegExp(`${front}(?:${escaped.join('|')})(?![\\p{L}\\p{N}])`, 'u');
}

const CODE = anyOf(CODE_WORDS);
const FACT = anyOf(FACT_STARTS, '^\\P{L}*');

function parse(text) {
  const given = JSON.parse(text);
  for (const [name, value] of Object.entries(given)) {
    if (!(name in DEFAULTS)) throw `unknown: ${name}; known: ${Object.keys(DEFAULTS).join(', ')}`;
    const isTtl = Number.isInteger(value) && value >= 0 && value < 2 ** 32;
    const isWords = Array.isArray(value) && value.every((word) => typeof word === 'string' && word !== '');
    if (name === 'time_words' ? !isWords : !isTtl) {
      throw `${name}: ${name === 'time_words' ? 'a list of words' : 'a number of seconds'} is needed`;
    }
  }
  const merged = { ...DEFAULTS, ...given };
  return { ...merged, time: anyOf([...TIME_WORDS, ...merged.time_words]) };
}

function lastQuestion(count) {
  for (let index = count - 1; index >= 0; index--) {
    if (messageRole(index) === 'user') return messageText(index, QUESTION_BYTES_MAX) ?? '';
  }
  return '';
}

function intentOf(question) {
  const text = question.toLowerCase();
  // What looks like code may well hold "now" or "current": it comes first only if it is marked as code.
  if (question.includes('```')) return 'code';
  if (settings.time.test(text)) return 'time';
  if (CODE.test(text)) return 'code';
  return FACT.test(text) ? 'fact' : 'other';
}

function withTtl(plan, seconds) {
  plan.fresh.ttlS = seconds;
  return plan;
}

export const setup = {
  configure(config) {
    settings = parse(config);
    return {
      name: 'ttl-by-intent',
      version: '0.1.0',
      needs: [],
      metrics: [],
      reasons: [REASON],
      labels: [{ name: 'intent', values: INTENTS }],
    };
  },
};

export const decide = {
  onRequest(req) {
    const intent = intentOf(lastQuestion(req.messageCount));
    const plan = defaults();
    plan.labels.push(['intent', intent]);
    switch (intent) {
      case 'time':
        if (settings.time_ttl_s > 0) return { tag: 'cache', val: withTtl(plan, settings.time_ttl_s) };
        return { tag: 'bypass', val: { reason: REASON, upstream: plan.upstream, labels: plan.labels } };
      case 'code':
        return { tag: 'cache', val: withTtl(plan, settings.code_ttl_s) };
      case 'fact':
        return { tag: 'cache', val: withTtl(plan, settings.fact_ttl_s) };
      default:
        return { tag: 'cache', val: plan };
    }
  },
};
