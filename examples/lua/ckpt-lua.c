// SPDX-License-Identifier: Apache-2.0 OR MIT
/*
 * ckpt-lua SCRIPT [ARGUMENT...]: runs a Lua script whose whole state survives.
 *
 * The Lua state lives in an arena: Lua asks for memory through an allocator of the host's
 * choice, and this host chooses ckpt's. The script runs as a coroutine. ckpt.commit()
 * yields to the host, so that nothing of the script is left on the C stack: a yielded
 * coroutine is nothing but memory. The host commits and resumes it. After a restore the
 * host finds the coroutine through the root pointer and resumes it as if ckpt.commit()
 * had just returned. What was committed is saved while the script goes on.
 *
 * Lua keeps pointers to C functions of this executable, so it must be loaded at the same
 * address again: run it under `ckptctl run`.
 *
 * Scripts get the table `ckpt`:
 *   ckpt.commit()   commits; true when this return is the first one after a restore
 *   ckpt.wait()     returns when the last commit is durable
 *   ckpt.epoch()    number of the last commit, 0 before any
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <lua5.4/lauxlib.h>
#include <lua5.4/lua.h>
#include <lua5.4/lualib.h>

#include "ckpt.h"

/* The root: what the restored host needs to find its state. */
struct root {
	lua_State *lua;    /* the state */
	lua_State *script; /* the coroutine, anchored in the state's registry */
	char path[256];    /* the script it runs */
};

static ckpt_t *ctx;

static void die(const char *what)
{
	fprintf(stderr, "ckpt-lua: %s: %s\n", what, ckpt_errmsg(ctx));
	exit(1);
}

/* Lua's allocator. */
static void *allocate(void *unused, void *block, size_t old_size, size_t new_size)
{
	(void)unused;
	(void)old_size;
	if (new_size == 0) {
		ckpt_free(ctx, block);
		return NULL;
	}
	return ckpt_realloc(ctx, block, new_size);
}

static int script_commit(lua_State *script)
{
	return lua_yield(script, 0);
}

static int script_wait(lua_State *script)
{
	if (ckpt_wait(ctx, 0, -1) < 0)
		return luaL_error(script, "%s", ckpt_errmsg(ctx));
	return 0;
}

static int script_epoch(lua_State *script)
{
	lua_pushinteger(script, (lua_Integer)ckpt_epoch(ctx));
	return 1;
}

static const luaL_Reg functions[] = {
	{ "commit", script_commit },
	{ "wait", script_wait },
	{ "epoch", script_epoch },
	{ NULL, NULL },
};

/* A new state in the arena, with the script loaded and its arguments as `arg`. */
static struct root *begin(int argc, char **argv)
{
	struct root *root = ckpt_calloc(ctx, 1, sizeof *root);
	if (!root)
		die("no memory in the arena");
	if (strlen(argv[1]) >= sizeof root->path) {
		fprintf(stderr, "ckpt-lua: the script's name is too long\n");
		exit(2);
	}
	strcpy(root->path, argv[1]);
	root->lua = lua_newstate(allocate, NULL);
	if (!root->lua)
		die("no memory in the arena");
	luaL_openlibs(root->lua);
	luaL_newlib(root->lua, functions);
	lua_setglobal(root->lua, "ckpt");
	lua_createtable(root->lua, argc, 0);
	for (int i = 1; i < argc; i++) {
		lua_pushstring(root->lua, argv[i]);
		lua_rawseti(root->lua, -2, i - 1);
	}
	lua_setglobal(root->lua, "arg");

	root->script = lua_newthread(root->lua);
	lua_setfield(root->lua, LUA_REGISTRYINDEX, "ckpt-lua.script");
	if (luaL_loadfile(root->script, argv[1]) != LUA_OK) {
		fprintf(stderr, "ckpt-lua: %s\n", lua_tostring(root->script, -1));
		exit(1);
	}
	if (ckpt_set_root(ctx, root) < 0)
		die("cannot set the root");
	return root;
}

int main(int argc, char **argv)
{
	if (argc < 2) {
		fprintf(stderr, "usage: ckpt-lua SCRIPT [ARGUMENT...]\n");
		return 2;
	}

	struct ckpt_options options = CKPT_OPTIONS_INIT;
	options.name = "ckpt-lua";
	if (ckpt_open(&options, &ctx) < 0)
		die("cannot open the chain");

	int restored = ckpt_is_restored(ctx);
	struct root *root = restored ? ckpt_root(ctx) : begin(argc, argv);
	if (!root)
		die("the chain has no Lua state");
	if (restored && strcmp(root->path, argv[1]) != 0) {
		fprintf(stderr, "ckpt-lua: the chain is of %s, not of %s\n", root->path, argv[1]);
		return 1;
	}

	for (;;) {
		int given = lua_status(root->script) == LUA_YIELD;
		if (given)
			lua_pushboolean(root->script, restored);
		restored = 0;
		int left;
		int status = lua_resume(root->script, root->lua, given, &left);
		if (status == LUA_OK)
			break;
		if (status != LUA_YIELD) {
			luaL_traceback(root->lua, root->script, lua_tostring(root->script, -1), 0);
			fprintf(stderr, "ckpt-lua: %s\n", lua_tostring(root->lua, -1));
			return 1;
		}
		lua_pop(root->script, left);
		if (ckpt_commit(ctx, NULL) < 0)
			die("cannot commit");
	}
	/* No lua_close: the arena goes with the process, and the chain keeps what was. */
	if (ckpt_close(ctx) < 0)
		die("cannot save");
	return 0;
}
