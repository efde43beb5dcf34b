vcl 4.1;

# The shortest path through Varnish's own rules: what it would do by itself, with nothing added.
backend default {
    .host = "@host@";
    .port = "@port@";
}
