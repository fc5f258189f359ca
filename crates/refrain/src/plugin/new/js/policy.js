// What this policy is for.

import { messageText } from 'refrain:policy/request@0.1.0';
import { defaults } from 'refrain:policy/route@0.1.0';

// Every reason that a decision may give is declared in `about`.
const TIME_SENSITIVE = 'time_sensitive';
const QUESTION_BYTES_MAX = 2048;

// What the operator says: `config = { ttl_s = 600 }` in `[plugin.NAME]`.
let config = { ttl_s: 600 };

export const setup = {
  // Called for each new instance. What is thrown here refuses the configuration.
  configure(text) {
    const given = JSON.parse(text);
    const unknown = Object.keys(given).find((name) => !(name in config));
    if (unknown) throw `unknown: ${unknown}`;
    config = { ...config, ...given };
    if (!Number.isInteger(config.ttl_s) || config.ttl_s < 0) throw 'ttl_s: a number of seconds is needed';
    return {
      name: '{{name}}',
      version: '0.1.0',
      needs: [],
      metrics: [],
      reasons: [TIME_SENSITIVE],
      labels: [],
    };
  },
};

export const decide = {
  // Called once a request. The route's own plan is the start: take it, and change what the policy is about.
  onRequest(req) {
    const plan = defaults();
    if (question(req).toLowerCase().includes('today')) {
      const { upstream, labels } = plan;
      return { tag: 'bypass', val: { reason: TIME_SENSITIVE, upstream, labels } };
    }
    // Named, not copied: Refrain reads the header itself.
    plan.key.add.push({ tag: 'header', val: 'x-project' });
    plan.fresh.ttlS = Math.min(plan.fresh.ttlS, config.ttl_s);
    return { tag: 'cache', val: plan };
  },
};

// The last message.
function question(req) {
  if (req.messageCount === 0) return '';
  return messageText(req.messageCount - 1, QUESTION_BYTES_MAX) ?? '';
}
