/* Tests of the answer: `.venv/bin/python build.py test`. They need no edge. */

#undef NDEBUG
#include <assert.h>
#include <string.h>

#include "greet.h"

int main(void) {
    char text[64];
    greet(text, sizeof text, "Good day", "/a");
    assert(strcmp(text, "Good day from /a\n") == 0);

    /* A cache may keep it only when asked. */
    assert(ttl("") == -1);
    assert(ttl("ttl=-1") == -1);
    assert(ttl("a=b&ttl=60") == 60);
    return 0;
}
