#include "facts.h"

#include <string.h>

// Two spellings are one fact only if this table says so: a difference that it overlooks costs a miss, no more.
struct word {
  const char *spelling;
  enum kind kind;
  const char *fact;
};

static const struct word WORDS[] = {
    {"zero", NUMBER, "0"},
    {"one", NUMBER, "1"},
    {"two", NUMBER, "2"},
    {"three", NUMBER, "3"},
    {"four", NUMBER, "4"},
    {"five", NUMBER, "5"},
    {"six", NUMBER, "6"},
    {"seven", NUMBER, "7"},
    {"eight", NUMBER, "8"},
    {"nine", NUMBER, "9"},
    {"ten", NUMBER, "10"},
    {"eleven", NUMBER, "11"},
    {"twelve", NUMBER, "12"},
    {"thirteen", NUMBER, "13"},
    {"fourteen", NUMBER, "14"},
    {"fifteen", NUMBER, "15"},
    {"sixteen", NUMBER, "16"},
    {"seventeen", NUMBER, "17"},
    {"eighteen", NUMBER, "18"},
    {"nineteen", NUMBER, "19"},
    {"twenty", NUMBER, "20"},
    {"thirty", NUMBER, "30"},
    {"forty", NUMBER, "40"},
    {"fifty", NUMBER, "50"},
    {"sixty", NUMBER, "60"},
    {"seventy", NUMBER, "70"},
    {"eighty", NUMBER, "80"},
    {"ninety", NUMBER, "90"},
    {"hundred", NUMBER, "hundred"},
    {"thousand", NUMBER, "thousand"},
    {"million", NUMBER, "million"},
    {"millions", NUMBER, "million"},
    {"billion", NUMBER, "billion"},
    {"billions", NUMBER, "billion"},
    {"trillion", NUMBER, "trillion"},
    {"dozen", NUMBER, "dozen"},
    {"half", NUMBER, "half"},
    {"quarterly", UNIT, "quarter"},
    {"double", NUMBER, "double"},
    {"twice", NUMBER, "twice"},
    {"triple", NUMBER, "triple"},
    {"first", NUMBER, "first"},
    {"third", NUMBER, "third"},
    {"fourth", NUMBER, "fourth"},

    {"january", DATE, "january"},
    {"jan", DATE, "january"},
    {"february", DATE, "february"},
    {"feb", DATE, "february"},
    {"march", DATE, "march"},
    {"mar", DATE, "march"},
    {"april", DATE, "april"},
    {"apr", DATE, "april"},
    {"june", DATE, "june"},
    {"jun", DATE, "june"},
    {"july", DATE, "july"},
    {"jul", DATE, "july"},
    {"august", DATE, "august"},
    {"aug", DATE, "august"},
    {"september", DATE, "september"},
    {"sept", DATE, "september"},
    {"sep", DATE, "september"},
    {"october", DATE, "october"},
    {"oct", DATE, "october"},
    {"november", DATE, "november"},
    {"nov", DATE, "november"},
    {"december", DATE, "december"},
    {"dec", DATE, "december"},
    {"monday", DATE, "monday"},
    {"tuesday", DATE, "tuesday"},
    {"wednesday", DATE, "wednesday"},
    {"thursday", DATE, "thursday"},
    {"friday", DATE, "friday"},
    {"saturday", DATE, "saturday"},
    {"sunday", DATE, "sunday"},
    {"today", DATE, "today"},
    {"tonight", DATE, "tonight"},
    {"tomorrow", DATE, "tomorrow"},
    {"yesterday", DATE, "yesterday"},
    {"ytd", DATE, "ytd"},

    {"%", UNIT, "percent"},
    {"percent", UNIT, "percent"},
    {"pct", UNIT, "percent"},
    {"bp", UNIT, "bp"},
    {"bps", UNIT, "bp"},
    {"basis", UNIT, "bp"},
    {"second", UNIT, "second"},
    {"seconds", UNIT, "second"},
    {"minute", UNIT, "minute"},
    {"minutes", UNIT, "minute"},
    {"hour", UNIT, "hour"},
    {"hours", UNIT, "hour"},
    {"hourly", UNIT, "hour"},
    {"day", UNIT, "day"},
    {"days", UNIT, "day"},
    {"daily", UNIT, "day"},
    {"week", UNIT, "week"},
    {"weeks", UNIT, "week"},
    {"weekly", UNIT, "week"},
    {"month", UNIT, "month"},
    {"months", UNIT, "month"},
    {"monthly", UNIT, "month"},
    {"quarter", UNIT, "quarter"},
    {"quarters", UNIT, "quarter"},
    {"year", UNIT, "year"},
    {"years", UNIT, "year"},
    {"yearly", UNIT, "year"},
    {"annual", UNIT, "year"},
    {"annually", UNIT, "year"},
    {"mg", UNIT, "mg"},
    {"gram", UNIT, "g"},
    {"grams", UNIT, "g"},
    {"kg", UNIT, "kg"},
    {"kilo", UNIT, "kg"},
    {"kilos", UNIT, "kg"},
    {"kilogram", UNIT, "kg"},
    {"kilograms", UNIT, "kg"},
    {"ton", UNIT, "ton"},
    {"tons", UNIT, "ton"},
    {"tonne", UNIT, "tonne"},
    {"tonnes", UNIT, "tonne"},
    {"lb", UNIT, "lb"},
    {"lbs", UNIT, "lb"},
    {"oz", UNIT, "oz"},
    {"ounce", UNIT, "oz"},
    {"ounces", UNIT, "oz"},
    {"mm", UNIT, "mm"},
    {"cm", UNIT, "cm"},
    {"meter", UNIT, "m"},
    {"meters", UNIT, "m"},
    {"metre", UNIT, "m"},
    {"metres", UNIT, "m"},
    {"km", UNIT, "km"},
    {"kilometer", UNIT, "km"},
    {"kilometers", UNIT, "km"},
    {"kilometre", UNIT, "km"},
    {"kilometres", UNIT, "km"},
    {"mile", UNIT, "mile"},
    {"miles", UNIT, "mile"},
    {"foot", UNIT, "foot"},
    {"feet", UNIT, "foot"},
    {"ft", UNIT, "foot"},
    {"inch", UNIT, "inch"},
    {"inches", UNIT, "inch"},
    {"liter", UNIT, "litre"},
    {"liters", UNIT, "litre"},
    {"litre", UNIT, "litre"},
    {"litres", UNIT, "litre"},
    {"gallon", UNIT, "gallon"},
    {"gallons", UNIT, "gallon"},
    {"barrel", UNIT, "barrel"},
    {"barrels", UNIT, "barrel"},
    {"share", UNIT, "share"},
    {"shares", UNIT, "share"},
    {"celsius", UNIT, "celsius"},
    {"fahrenheit", UNIT, "fahrenheit"},
    {"kwh", UNIT, "kwh"},
    {"mwh", UNIT, "mwh"},
    {"kb", UNIT, "kb"},
    {"mb", UNIT, "mb"},
    {"gb", UNIT, "gb"},
    {"tb", UNIT, "tb"},

    {"$", CURRENCY, "dollar"},
    {"dollar", CURRENCY, "dollar"},
    {"dollars", CURRENCY, "dollar"},
    {"bucks", CURRENCY, "dollar"},
    {"usd", CURRENCY, "usd"},
    {"cad", CURRENCY, "cad"},
    {"aud", CURRENCY, "aud"},
    {"cent", CURRENCY, "cent"},
    {"cents", CURRENCY, "cent"},
    {"\xe2\x82\xac", CURRENCY, "euro"},
    {"euro", CURRENCY, "euro"},
    {"euros", CURRENCY, "euro"},
    {"eur", CURRENCY, "euro"},
    {"\xc2\xa3", CURRENCY, "pound"},
    {"pound", CURRENCY, "pound"},
    {"pounds", CURRENCY, "pound"},
    {"gbp", CURRENCY, "gbp"},
    {"sterling", CURRENCY, "gbp"},
    {"pence", CURRENCY, "pence"},
    {"\xc2\xa5", CURRENCY, "yen-or-yuan"},
    {"yen", CURRENCY, "yen"},
    {"jpy", CURRENCY, "yen"},
    {"yuan", CURRENCY, "yuan"},
    {"rmb", CURRENCY, "yuan"},
    {"cny", CURRENCY, "yuan"},
    {"\xe2\x82\xb9", CURRENCY, "rupee"},
    {"rupee", CURRENCY, "rupee"},
    {"rupees", CURRENCY, "rupee"},
    {"inr", CURRENCY, "rupee"},
    {"franc", CURRENCY, "franc"},
    {"francs", CURRENCY, "franc"},
    {"chf", CURRENCY, "chf"},
    {"won", CURRENCY, "won"},
    {"btc", CURRENCY, "bitcoin"},
    {"bitcoin", CURRENCY, "bitcoin"},
    {"bitcoins", CURRENCY, "bitcoin"},
    {"eth", CURRENCY, "ether"},
    {"ether", CURRENCY, "ether"},
};

// "last year" is another one than "this year".
static const char *const RELATIVES[][2] = {
    {"last", "last"},   {"past", "last"}, {"previous", "last"}, {"prior", "last"}, {"next", "next"},
    {"coming", "next"}, {"this", "this"}, {"current", "this"},
};

enum { WORD_COUNT = sizeof WORDS / sizeof *WORDS, RELATIVE_COUNT = sizeof RELATIVES / sizeof *RELATIVES };

// A run of bytes of the text.
struct span {
  const uint8_t *at;
  size_t len;
};

static bool is_digit(uint8_t byte) { return byte >= '0' && byte <= '9'; }

static uint8_t lower(uint8_t byte) { return byte >= 'A' && byte <= 'Z' ? byte + 32 : byte; }

static bool is_letter(uint8_t byte) { return lower(byte) >= 'a' && lower(byte) <= 'z'; }

static bool same(struct span span, const char *word) {
  // The first letter tells most words apart: each word of a text is compared with all known ones.
  if (span.len == 0 || lower(span.at[0]) != (uint8_t)word[0] || strlen(word) != span.len) return false;
  for (size_t i = 0; i < span.len; i++) {
    if (lower(span.at[i]) != (uint8_t)word[i]) return false;
  }
  return true;
}

static void add(struct facts *facts, enum kind kind, struct span span) {
  if (facts->len == FACTS_MAX || span.len > FACT_BYTES_MAX) {
    facts->incomplete = true;
    return;
  }
  struct fact *fact = &facts->list[facts->len++];
  fact->kind = kind;
  fact->len = (uint8_t)span.len;
  for (size_t i = 0; i < span.len; i++) fact->text[i] = (char)lower(span.at[i]);
}

static void add_word(struct facts *facts, enum kind kind, const char *word) {
  add(facts, kind, (struct span){(const uint8_t *)word, strlen(word)});
}

static const struct word *find(struct span span) {
  for (size_t i = 0; i < WORD_COUNT; i++) {
    if (same(span, WORDS[i].spelling)) return &WORDS[i];
  }
  return NULL;
}

// Of "last year": that it is the last one.
static void read_relative(struct span before, struct facts *facts) {
  for (size_t i = 0; i < RELATIVE_COUNT; i++) {
    if (same(before, RELATIVES[i][0])) add_word(facts, DATE, RELATIVES[i][1]);
  }
}

static bool read_known(struct span span, struct span before, struct facts *facts) {
  const struct word *word = find(span);
  if (!word) return false;
  if (word->kind == UNIT) read_relative(before, facts);
  add_word(facts, word->kind, word->fact);
  return true;
}

// A month only where a verb can't stand.
static bool is_may(struct span span, struct span before) {
  static const char *const FRONT[] = {"in", "of", "since", "by", "until", "this", "last", "next", "early", "late", "mid"};
  if (!same(span, "may")) return false;
  for (size_t i = 0; i < sizeof FRONT / sizeof *FRONT; i++) {
    if (same(before, FRONT[i])) return true;
  }
  return before.len > 0 && is_digit(before.at[before.len - 1]);
}

// A word that starts with a letter; digits that follow at once belong to it: "Q3", "FY2025", "USD100".
static size_t read_word(struct span rest, struct span before, struct facts *facts) {
  size_t letters = 0;
  while (letters < rest.len && is_letter(rest.at[letters])) letters++;
  size_t end = letters;
  while (end < rest.len && is_digit(rest.at[end])) end++;
  struct span word = {rest.at, letters};
  if (end > letters && (same(word, "q") || same(word, "h") || same(word, "fy"))) {
    add(facts, DATE, (struct span){rest.at, end});
    return end;
  }
  if (!read_known(word, before, facts) && is_may(word, before)) add_word(facts, DATE, "may");
  return letters;
}

// Digits with what can stand between digits: "1,000.50", "2025-11-22", "14:30", "22/11".
static size_t number_end(struct span rest) {
  size_t end = 1;
  while (end < rest.len) {
    if (is_digit(rest.at[end])) {
      end++;
    } else if (memchr(".,-/:", rest.at[end], 5) && end + 1 < rest.len && is_digit(rest.at[end + 1])) {
      end += 2;
    } else {
      break;
    }
  }
  return end;
}

static bool is_date(struct span span) {
  size_t dashes = 0;
  for (size_t i = 0; i < span.len; i++) {
    if (span.at[i] == '/' || span.at[i] == ':') return true;
    dashes += span.at[i] == '-';
  }
  return dashes == 2;
}

// Without the commas of thousands and the zeros at the end of a fraction: "1,000.50" is "1000.5".
static void add_number(struct facts *facts, struct span span, bool negative) {
  uint8_t text[FACT_BYTES_MAX];
  size_t len = 0;
  bool fraction = false;
  if (negative) text[len++] = '-';
  for (size_t i = 0; i < span.len; i++) {
    bool thousands = span.at[i] == ',' && i + 3 < span.len && (i + 4 == span.len || !is_digit(span.at[i + 4]));
    if (thousands) continue;
    if (len == FACT_BYTES_MAX) {
      facts->incomplete = true;
      return;
    }
    fraction |= span.at[i] == '.';
    text[len++] = span.at[i];
  }
  while (fraction && text[len - 1] == '0') len--;
  if (fraction && text[len - 1] == '.') len--;
  add(facts, NUMBER, (struct span){text, len});
}

// A number and the letters that follow at once: a unit that is known ("10kg") or not ("5k", "3rd").
static size_t read_number(struct span rest, bool negative, struct facts *facts) {
  size_t end = number_end(rest);
  struct span number = {rest.at, end};
  if (is_date(number)) {
    add(facts, DATE, number);
  } else {
    add_number(facts, number, negative);
  }
  size_t letters = end;
  while (letters < rest.len && is_letter(rest.at[letters])) letters++;
  struct span suffix = {rest.at + end, letters - end};
  struct span none = {rest.at, 0};
  if (suffix.len > 0 && !read_known(suffix, none, facts)) add(facts, UNIT, suffix);
  return letters;
}

// A sign: "%", "$" or a currency's of two or three bytes.
static size_t read_sign(struct span rest, struct facts *facts) {
  struct span none = {rest.at, 0};
  if (rest.at[0] == ' ') return 1;
  for (size_t len = 1; len <= 3 && len <= rest.len; len++) {
    if (read_known((struct span){rest.at, len}, none, facts)) return len;
  }
  return 1;
}

static bool is_minus(const uint8_t *text, size_t len, size_t at) {
  bool opens = at == 0 || text[at - 1] == ' ' || text[at - 1] == '(';
  return text[at] == '-' && opens && at + 1 < len && is_digit(text[at + 1]);
}

void facts_read(const uint8_t *text, size_t len, struct facts *facts) {
  facts->len = 0;
  facts->incomplete = false;
  struct span before = {text, 0};
  for (size_t at = 0; at < len;) {
    bool negative = is_minus(text, len, at);
    at += negative;
    struct span rest = {text + at, len - at};
    size_t read;
    if (is_digit(text[at])) {
      read = read_number(rest, negative, facts);
      before = (struct span){rest.at, read};
    } else if (is_letter(text[at])) {
      read = read_word(rest, before, facts);
      before = (struct span){rest.at, read};
    } else {
      read = read_sign(rest, facts);
    }
    at += read;
  }
}

// The next fact of a kind from an index on.
static const struct fact *next(const struct facts *facts, enum kind kind, size_t *index) {
  while (*index < facts->len) {
    const struct fact *fact = &facts->list[(*index)++];
    if (fact->kind == kind) return fact;
  }
  return NULL;
}

static bool differ_in(const struct facts *a, const struct facts *b, enum kind kind) {
  size_t i = 0, j = 0;
  for (;;) {
    const struct fact *x = next(a, kind, &i), *y = next(b, kind, &j);
    if (!x || !y) return x || y;
    if (x->len != y->len || memcmp(x->text, y->text, x->len) != 0) return true;
  }
}

enum kind facts_differ(const struct facts *a, const struct facts *b) {
  for (enum kind kind = NUMBER; kind < KINDS; kind++) {
    if (differ_in(a, b, kind)) return kind;
  }
  return KINDS;
}
