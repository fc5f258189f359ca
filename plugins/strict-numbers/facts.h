// What a text says in numbers: the amounts, dates, units and currencies in it, in the order in which they stand there.
#ifndef FACTS_H
#define FACTS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum kind { NUMBER, DATE, UNIT, CURRENCY, KINDS };

enum {
  FACTS_MAX = 64,
  FACT_BYTES_MAX = 24,
};

struct fact {
  enum kind kind;
  uint8_t len;
  char text[FACT_BYTES_MAX];
};

struct facts {
  size_t len;
  // More facts than fit, or a longer one: nothing may be concluded from what is here.
  bool incomplete;
  struct fact list[FACTS_MAX];
};

// Reads a text in UTF-8. Understands English words, digits and signs; what it doesn't know is no fact.
void facts_read(const uint8_t *text, size_t len, struct facts *facts);

// The first kind in which the two differ, else KINDS.
enum kind facts_differ(const struct facts *a, const struct facts *b);

#endif
