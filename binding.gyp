{
  # A bridge for programs that know only node-gyp (prebuildify): CMakeLists.txt describes the build. CMake gets a folder of its own,
  # because both it and node-gyp write a Makefile.
  "targets": [
    {
      "target_name": "llmpt_native",
      "type": "none",
      "actions": [
        {
          "action_name": "cmake",
          "inputs": ["CMakeLists.txt"],
          "outputs": ["<(PRODUCT_DIR)/llmpt_native.node"],
          "action": [
            "node",
            "scripts/build-native.mjs",
            "--force",
            "--out",
            "build/cmake",
            "--copy-to",
            "<(PRODUCT_DIR)",
          ],
        },
      ],
    },
  ],
}
