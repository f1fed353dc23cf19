/* Tables, and how wide a text is. */
#include <limits.h>
#include <locale.h>
#include <pthread.h>
#include <string.h>
#include <wchar.h>

#include "cmd/cmd.h"

/* ---- how wide a text is ---- */

static locale_t unicode;

static void load_unicode(void)
{
    unicode = newlocale(LC_CTYPE_MASK, "C.UTF-8", (locale_t)0);
}

/* The length of the character at `s` in bytes, and in columns: two for those of East Asia, none for
 * accents. Whatever the user's locale is, what we print is UTF-8. */
static size_t next_character(const char *s, size_t *ret_columns)
{
    wchar_t c = 0;
    mbstate_t state = {0};
    size_t len = unicode ? mbrtowc(&c, s, strlen(s), &state) : 0;
    if (len == 0 || len > MB_LEN_MAX) {
        *ret_columns = ((unsigned char)*s & 0xc0) != 0x80;
        return 1;
    }
    int columns = wcwidth(c);
    *ret_columns = columns < 0 ? 1 : (size_t)columns;
    return len;
}

/* Bytes of `text` that take at most `columns` columns. */
static size_t bytes_within(const char *text, size_t columns, size_t *ret_columns)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, load_unicode);
    locale_t before = unicode ? uselocale(unicode) : (locale_t)0;
    size_t bytes = 0, used = 0;
    while (text[bytes]) {
        size_t width, len = next_character(text + bytes, &width);
        if (used + width > columns)
            break;
        used += width;
        bytes += len;
    }
    if (before)
        uselocale(before);
    *ret_columns = used;
    return bytes;
}

size_t cmd_columns(const char *text)
{
    size_t columns;
    bytes_within(text, SIZE_MAX, &columns);
    return columns;
}

char *cmd_columns_cut(const char *text, size_t columns)
{
    size_t used, bytes = bytes_within(text, columns, &used);
    if (!text[bytes])
        return uvm_strdup(text);
    const char *mark = columns > 4 ? ".." : "";
    bytes = bytes_within(text, columns - strlen(mark), &used);
    return uvm_format("%.*s%s", (int)bytes, text, mark);
}

/* ---- tables ---- */

void cmd_table_row(struct cmd_table *table, const char *const *cells)
{
    size_t used = table->rows * table->columns;
    table->cells = uvm_grow(table->cells, used + table->columns, sizeof *table->cells);
    for (size_t i = 0; i < table->columns; i++)
        table->cells[used + i] = uvm_printable(cells[i]);
    table->rows++;
}

static void print_row(const struct cmd_table *table, char *const *cells, const size_t *widths)
{
    uvm_auto_free char *line = uvm_strdup("");
    for (size_t i = 0; i < table->columns; i++) {
        bool last = i + 1 == table->columns;
        int padding = last ? 0 : (int)(widths[i] - cmd_columns(cells[i]) + 2);
        char *longer = uvm_format("%s%s%*s", line, cells[i], padding, "");
        free(line);
        line = longer;
    }
    cmd_print("%s", line);
}

void cmd_table_print(const struct cmd_table *table)
{
    uvm_auto_free size_t *widths = uvm_alloc(table->columns * sizeof *widths);
    for (size_t i = 0; i < table->rows * table->columns; i++) {
        size_t width = cmd_columns(table->cells[i]);
        if (width > widths[i % table->columns])
            widths[i % table->columns] = width;
    }
    for (size_t row = 0; row < table->rows; row++)
        print_row(table, table->cells + row * table->columns, widths);
}

void cmd_table_clear(struct cmd_table *table)
{
    for (size_t i = 0; i < table->rows * table->columns; i++)
        free(table->cells[i]);
    free(table->cells);
    *table = (struct cmd_table){.columns = table->columns};
}
