"""The 52 papers this library gathers: what each is called, where it lives, and which methods it becomes."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Paper:
    """One paper.

    Attributes:
        card: Its number, 1 to 52.
        slug: Its short name.
        title: Its title, or the part of it that tells papers apart.
        room: The room of the package where its main method lives.
        methods: Names of the methods it becomes.
    """

    card: int
    slug: str
    title: str
    room: str
    methods: tuple[str, ...]


_TABLE = """
01 | trce | Towards Reliable Malicious Concept Erasure in Text-to-Image Diffusion Models | concepts | trce
02 | self-positioning | Tackling Task Conflict and Data Imbalance through Model Merging | text | self_positioning
03 | imaginator | Pre-Trained Image+Text Joint Embeddings using Word-Level Grounding of Images | words | imaginator
04 | nv-embed | NV-Embed: Improved Techniques for Training LLMs as Generalist Embedding Models | text | nv_embed
05 | sesa | Supervised Explicit Semantic Analysis | text | sesa
06 | word-vectors-to-multimodal | From Word Vectors to Multimodal Embeddings (survey) | words | debias alignment numbers topics
07 | text-embedding-meets-llm | When Text Embedding Meets Large Language Model (survey) | text | synthesis
08 | vlm2vec | VLM2Vec: Training Vision-Language Models for Massive Multimodal Embedding Tasks | multimodal | vlm2vec
09 | longembed | LongEmbed: Extending Embedding Models for Long Context Retrieval | text | long_embed
10 | core | Context-Regularized Text Embedding Learning for Text-to-Image Personalization | concepts | core_regularizer
11 | embedding-compression | Experimental Analysis of Large-scale Learnable Vector Storage Compression | categorical | compression
12 | irwe | Inductive Random Walk for Joint Inference of Identity and Position Network Embedding | graphs | irwe
13 | word-and-document-embeddings | Word and Document Embeddings based on Neural Network Approaches | words | neural_words
14 | zett | Zero-Shot Tokenizer Transfer | text | zett
15 | finmteb | FinMTEB: Finance Massive Text Embedding Benchmark | evaluate | finmteb
16 | optembed | OptEmbed: Learning Optimal Embedding Table for Click-through Rate Prediction | categorical | opt_embed
17 | unified-embedding | Unified Embedding: Battle-Tested Feature Representations for Web-Scale ML | categorical | unified
18 | pooling-and-attention | Pooling And Attention: Effective Designs for LLM-Based Embedding | text | pooling_attention
19 | gpt4image | GPT4Image: Can Large Pre-trained Models Help Vision Models on Perception Tasks? | vision | gpt4image
20 | cones | Concept Embedding Search for Parameter Efficient Tuning of Vision Language Models | concepts | cones
21 | medical-knowledge-graph | Integration of Domain Knowledge for Cancer Phenotyping | words | knowledge_graph
22 | aspect-document-embeddings | Specialized Document Embeddings for Aspect-based Similarity | text | aspect_documents
23 | bidr | Progressively Optimized Bi-Granular Document Representation for Scalable Retrieval | search | bidr
24 | bebr | Binary Embedding-based Retrieval at Tencent | search | bebr
25 | decor | Decomposition and Projection of Text Embeddings for Image Customization | concepts | decor
26 | emoe | Unlocking Emergent Modularity in Large Language Models | text | emoe
27 | domain-specific-embeddings | Do We Need Domain-Specific Embedding Models? | evaluate | domain_gap
28 | cubert | Learning and Evaluating Contextual Embedding of Source Code | text | cubert
29 | equiangular-basis-vectors | Equiangular Basis Vectors | vision | equiangular
30 | lorat | Tracking Meets LoRA: Faster Training, Larger Model, Stronger Performance | vision | lorat
31 | mme5 | mmE5: Multimodal Multilingual Embeddings via High-quality Synthetic Data | multimodal | mme5
32 | tempscale | Length-Induced Embedding Collapse in Transformer-based Models | text | temp_scale
33 | detex | Decoupled Textual Embeddings for Customized Image Generation | concepts | detex
34 | peg | Towards Robust Text Retrieval with Progressive Learning | text | progressive
35 | relative-representations | Relative Representations Enable Zero-Shot Latent Space Communication | understand | relative
36 | magb | When Graph meets Multimodal: Multimodal Attributed Graphs Learning | graphs | multimodal_graph
37 | close | Learning Visual Tasks Using only Language Supervision | multimodal | close
38 | llms-as-embedders | LLMs are Also Effective Embedding Models (overview) | text | prompting
39 | dupmae | Duplex Masked Auto-Encoder For Pre-Training Retrieval-Oriented Language Models | text | dupmae
40 | disenbooth | Identity-Preserving Disentangled Tuning for Text-to-Image Generation | concepts | disenbooth
41 | gistembed | Guided In-sample Selection of Training Negatives for Text Embedding Fine-tuning | text | gist
42 | 2d-matryoshka | 2D Matryoshka Sentence Embeddings | text | matryoshka_2d
43 | visually-grounded-words | Language with Vision: Grounded Word and Sentence Embeddings | words | visual_grounding
44 | tte-depth | Statistical Depth for Ranking and Characterizing Text Embeddings | understand | tte_depth
45 | observatory | Observatory: Characterizing Embeddings of Relational Tables | understand | observatory
46 | future-token-prediction | Per-Token Semantic State Vector for Multi-Token Prediction | text | future_token
47 | mmteb | MMTEB: Massive Multilingual Text Embedding Benchmark | evaluate | mmteb
48 | ovis | Structural Embedding Alignment for Multimodal Large Language Model | multimodal | ovis
49 | image-text-matching | Deep Learning Applied to Image and Text Matching | multimodal | image_text_matching
50 | neti | A Neural Space-Time Representation for Text-to-Image Personalization | concepts | neti
51 | bert-or-fasttext | BERT or FastText? Contextual and Non-Contextual Embeddings Compared | evaluate | static_vs_contextual
52 | cross-initialization | Cross Initialization for Personalized Text-to-Image Generation | concepts | cross_initialization
"""  # noqa: E501 - one paper a line reads better


def papers() -> tuple[Paper, ...]:
    """Return the papers, by card number.

    Returns:
        All 52, whether their methods are written or not.

    Example:
        >>> papers()[40].methods
        ('gist',)
    """
    rows = (line.split(" | ") for line in _TABLE.strip().splitlines())
    return tuple(Paper(int(card), slug, title, room, tuple(names.split())) for card, slug, title, room, names in rows)
