#include "greet.h"

#include <stdio.h>
#include <string.h>

void greet(char *text, size_t size, const char *greeting, const char *path) {
    snprintf(text, size, "%s from %s\n", greeting, path);
}

long ttl(const char *query) {
    for (const char *pair = query; pair != NULL; pair = strchr(pair, '&')) {
        pair += *pair == '&';
        if (strncmp(pair, "ttl=", 4) != 0) continue;
        long seconds = 0;
        const char *digit = pair + 4;
        /* Nine digits fit in any `long`. */
        for (; *digit >= '0' && *digit <= '9' && digit - pair < 4 + 9; digit++)
            seconds = seconds * 10 + (*digit - '0');
        return digit > pair + 4 && (*digit == '\0' || *digit == '&') ? seconds : -1;
    }
    return -1;
}
