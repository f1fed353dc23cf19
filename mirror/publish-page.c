/* The page of a published tree: what is there, for people with a browser and nothing else. */
#include <stdio.h>
#include <string.h>

#include "mirror/publish.h"

static const char head[] =
    "<!DOCTYPE html>\n"
    "<html lang=\"en\">\n"
    "<head>\n"
    "<meta charset=\"utf-8\">\n"
    "<meta name=\"viewport\" content=\"width=device-width\">\n"
    "<title>Cloud images</title>\n"
    "<style>\n"
    "body{font:16px/1.5 sans-serif;margin:2em auto;max-width:70em;padding:0 1em;color:#222}\n"
    "table{border-collapse:collapse;width:100%}\n"
    "th,td{text-align:left;padding:.3em .8em .3em 0;border-bottom:1px solid #ccc;"
    "vertical-align:top}\n"
    "td.sum{font:12px monospace;word-break:break-all}\n"
    "code{background:#eee;padding:.1em .3em}\n"
    "</style>\n"
    "</head>\n"
    "<body>\n"
    "<h1>Cloud images</h1>\n";

/* Text in HTML: nothing of a stream is markup. */
static void put_text(FILE *out, const char *text)
{
    uvm_auto_free char *printable = uvm_printable(text);
    for (const char *c = printable; *c; c++) {
        if (strchr("&<>\"'", *c))
            fprintf(out, "&#%d;", *c);
        else
            fputc(*c, out);
    }
}

/* A path as a relative link. What is not plain is escaped (RFC 3986, section 2.1). */
static void put_link(FILE *out, const char *path)
{
    static const char plain[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"
                                "-._~/";
    fputs("./", out); /* a first segment with a colon is no scheme */
    for (const char *c = path; *c; c++) {
        if (strchr(plain, *c))
            fputc(*c, out);
        else
            fprintf(out, "%%%02X", (unsigned char)*c);
    }
}

static void put_cell(FILE *out, const char *text)
{
    fputs("<td>", out);
    put_text(out, text);
    fputs("</td>", out);
}

static bool put_image(void *opaque, const struct mirror_image *image, struct uvm_error *err)
{
    FILE *out = opaque;
    const char *const keys[] = {"release", "arch", "label"};
    uvm_auto_free char *size = uvm_size_text(image->size);
    (void)err;
    fputs("<tr>", out);
    for (size_t i = 0; i < sizeof keys / sizeof *keys; i++)
        put_cell(out, mirror_image_get(image, keys[i]));
    put_cell(out, image->version);
    fputs("<td><a href=\"", out);
    put_link(out, image->path);
    fputs("\">", out);
    put_text(out, image->item);
    fputs("</a></td>", out);
    put_cell(out, size);
    fputs("<td class=\"sum\">", out);
    put_text(out, image->sha256 ? image->sha256 : image->sha512);
    fputs("</td></tr>\n", out);
    return true;
}

static void put_stream(FILE *out, const char *content_id, json_t *tree)
{
    uvm_auto_error ignored = UVM_ERROR_INIT;
    const char *updated = json_string_value(json_object_get(tree, "updated"));
    fputs("<h2>", out);
    put_text(out, content_id);
    fputs("</h2>\n<p>The vendor's list is of ", out);
    put_text(out, updated ? updated : "an unknown time");
    fputs(".</p>\n<table>\n<tr><th>Release</th><th>Architecture</th><th>Label</th><th>Version</th>"
          "<th>File</th><th>Size</th><th>SHA-256 (or SHA-512)</th></tr>\n",
          out);
    mirror_publish_each(tree, put_image, out, &ignored); /* they are sound: an index names them */
    fputs("</table>\n", out);
}

char *mirror_publish_page(json_t *trees, const char *signer, time_t now)
{
    char *text = NULL;
    size_t len = 0;
    uvm_auto_free char *time = uvm_time_text(now);
    const char *content_id;
    json_t *tree;
    FILE *out = open_memstream(&text, &len);
    if (!out)
        abort();
    fprintf(out,
            "%s<p>Published %s, signed by the key <code>%s</code> "
            "(<a href=\"./streams/v1/index.sjson\">streams/v1/index.sjson</a>).</p>\n",
            head, time, signer);
    json_object_foreach(trees, content_id, tree)
    {
        put_stream(out, content_id, tree);
    }
    fputs("</body>\n</html>\n", out);
    if (fclose(out) != 0 || !text)
        abort();
    return text;
}
