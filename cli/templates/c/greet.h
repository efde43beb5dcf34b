/* The answer itself. It knows nothing of the edge, so that this machine can test it. */
#ifndef GREET_H
#define GREET_H

#include <stddef.h>

/* Writes the greeting; cuts it at the size. */
void greet(char *text, size_t size, const char *greeting, const char *path);

/* The number of seconds in `ttl=60`; -1 when there is none. */
long ttl(const char *query);

#endif
